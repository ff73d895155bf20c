// A YAML document as a tree that remembers where each part was written: what config_read.cc fills structs from.
#pragma once
#include <memory>
#include <string>
#include <vector>

namespace molt::config_tree {

struct Node;
using NodePointer = std::shared_ptr<const Node>;

struct Entry {
  std::string key;
  std::string origin;  // of the key: "recipe.yaml:12", "--set a.b=c", or the option that stands for it
  NodePointer value;
  bool from_option = false;  // the origin is such an option: nobody wrote the key
};

struct Node {
  enum class Kind { null, scalar, list, mapping };
  Kind kind = Kind::null;
  std::string origin;
  std::string text;                // of a scalar
  std::vector<NodePointer> items;  // of a list
  std::vector<Entry> entries;      // of a mapping, in the file's order, each key once
  int height = 1;                  // levels from here to the deepest part, aliases followed

  const Entry* find(const std::string& key) const;
};

// The only document of `text`; aliases and merge keys (<<) are resolved. `origin` names the text in messages; lines are added to
// it when `with_lines`. UserError for what is no YAML, a key given twice, an alias inside what it names, more than 256 levels.
NodePointer parse(const std::string& text, const std::string& origin, bool with_lines);

// `root` with one assignment made: "a.b=c", "list[2].b=c", where the value is YAML and missing sections are added. It comes of
// `option`, or with "" of --set.
NodePointer assign(const NodePointer& root, const std::string& assignment, const std::string& option = "");

// A node as messages show it: "30", "a list", "a section", "nothing".
std::string shown(const Node& node);

}  // namespace molt::config_tree
