#include "base/config_include.h"

#include <algorithm>

#include "base/error.h"

namespace molt::config_tree {

namespace including {

constexpr const char* key = "include";

// `over` where both say something.
NodePointer merged(const NodePointer& over, const NodePointer& under) {
  if (over->kind == Node::Kind::null) return under;
  if (over->kind != Node::Kind::mapping || under->kind != Node::Kind::mapping) return over;
  auto result = std::make_shared<Node>(*over);
  for (const Entry& entry : under->entries) {
    const auto own = std::find_if(result->entries.begin(), result->entries.end(),
                                  [&](const Entry& candidate) { return candidate.key == entry.key; });
    if (own == result->entries.end())
      result->entries.push_back(entry);
    else
      own->value = merged(own->value, entry.value);
  }
  for (const Entry& entry : result->entries) result->height = std::max(result->height, entry.value->height + 1);
  return result;
}

std::vector<std::string> names(const Node& value) {
  std::vector<std::string> found;
  const auto take = [&](const Node& node) {
    require(node.kind == Node::Kind::scalar && !node.text.empty(), node.origin, ": ", key, ": found ", shown(node),
            ", expected the name of a file or a list of them");
    found.push_back(node.text);
  };
  if (value.kind != Node::Kind::list)
    take(value);
  else
    for (const NodePointer& item : value.items) take(*item);
  return found;
}

// `open`: the files on the way here.
NodePointer read(const fs::path& path, std::vector<fs::path>& open) {
  const fs::path whole = fs::weakly_canonical(path);
  require(std::find(open.begin(), open.end(), whole) == open.end(), path.string(), ": ", key, ": the file includes itself");
  NodePointer root = parse(read_file(path), path.string(), true);
  const Entry* entry = root->find(key);
  if (!entry) return root;
  open.push_back(whole);
  auto own = std::make_shared<Node>(*root);
  std::erase_if(own->entries, [](const Entry& candidate) { return candidate.key == key; });
  NodePointer under = std::make_shared<Node>();
  for (const std::string& name : names(*entry->value)) under = merged(read(path.parent_path() / name, open), under);
  open.pop_back();
  return merged(own, under);
}

}  // namespace including

NodePointer read_with_includes(const fs::path& path) {
  std::vector<fs::path> open;
  return including::read(path, open);
}

}  // namespace molt::config_tree
