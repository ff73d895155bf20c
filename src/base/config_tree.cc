#include "base/config_tree.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>
// After the others: it does not include what it needs.
#include <yaml-cpp/depthguard.h>

#include <algorithm>
#include <sstream>
#include <unordered_map>
#include <unordered_set>

#include "base/counted.h"
#include "base/error.h"

namespace molt::config_tree {

namespace build_detail {

constexpr int deepest = 256;

// Builds the tree from the parser's events.
class Builder final : public YAML::EventHandler {
 public:
  Builder(const std::string& origin, bool with_lines) : origin_(origin), with_lines_(with_lines) {}

  NodePointer root = std::make_shared<Node>();

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override { place(make(mark, Node::Kind::null), anchor, false); }

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto named = anchors_.find(anchor);
    require(named != anchors_.end(), at(mark), ": an alias (*name) stands inside what it names");
    place(named->second, 0, false);
  }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, const std::string& value) override {
    auto node = make(mark, Node::Kind::scalar);
    node->text = value;
    place(node, anchor, tag == "?");
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor, YAML::EmitterStyle::value) override {
    open_.push_back({make(mark, Node::Kind::list), anchor, {}, {}, {}, {}});
  }
  void OnSequenceEnd() override { close(); }

  void OnMapStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor, YAML::EmitterStyle::value) override {
    open_.push_back({make(mark, Node::Kind::mapping), anchor, {}, {}, {}, {}});
  }
  void OnMapEnd() override {
    for (const NodePointer& merged : open_.back().merged) merge(merged);
    close();
  }

 private:
  // A list or mapping whose end has not come.
  struct Open {
    std::shared_ptr<Node> node;
    YAML::anchor_t anchor;
    NodePointer key;  // waits for its value
    bool merges;      // the key is "<<"
    std::vector<NodePointer> merged;
    std::unordered_map<std::string, std::string> keys;  // with their origins
  };

  std::string at(const YAML::Mark& mark) const {
    return with_lines_ && !mark.is_null() ? concat(origin_, ":", mark.line + 1) : origin_;
  }

  std::shared_ptr<Node> make(const YAML::Mark& mark, Node::Kind kind) const {
    auto node = std::make_shared<Node>();
    node->kind = kind;
    node->origin = at(mark);
    return node;
  }

  void close() {
    const Open closed = std::move(open_.back());
    open_.pop_back();
    place(closed.node, closed.anchor, false);
  }

  void raise(Node& parent, const Node& child) {
    parent.height = std::max(parent.height, child.height + 1);
    require(parent.height <= deepest, child.origin, ": nested deeper than ", deepest, " levels");
  }

  // Puts a finished node into the list or mapping that is open, or makes it the root.
  void place(const NodePointer& node, YAML::anchor_t anchor, bool plain) {
    if (anchor) anchors_[anchor] = node;
    if (open_.empty()) {
      root = node;
      return;
    }
    Open& parent = open_.back();
    if (parent.node->kind == Node::Kind::list) {
      raise(*parent.node, *node);
      parent.node->items.push_back(node);
    } else if (!parent.key) {
      require(node->kind == Node::Kind::scalar, node->origin, ": found ", shown(*node), ", expected a key");
      parent.key = node;
      parent.merges = plain && node->text == "<<";
    } else {
      const NodePointer key = std::exchange(parent.key, nullptr);
      if (parent.merges) {
        collect(parent.merged, *node, node);
        return;
      }
      const auto [first, is_new] = parent.keys.emplace(key->text, key->origin);
      require(is_new, key->origin, ": ", key->text, ": given twice (first at ", first->second, ")");
      raise(*parent.node, *node);
      parent.node->entries.push_back({key->text, key->origin, node});
    }
  }

  static void collect(std::vector<NodePointer>& merged, const Node& value, const NodePointer& node) {
    const bool is_list = value.kind == Node::Kind::list;
    for (const NodePointer& part : is_list ? value.items : std::vector<NodePointer>{node}) {
      require(part->kind == Node::Kind::mapping, part->origin, ": <<: found ", shown(*part), ", expected a section to merge");
      merged.push_back(part);
    }
  }

  // Keys of its own stay, and of several merged sections the earlier one counts.
  void merge(const NodePointer& merged) {
    Open& into = open_.back();
    for (const Entry& entry : merged->entries) {
      if (!into.keys.emplace(entry.key, entry.origin).second) continue;
      raise(*into.node, *entry.value);
      into.node->entries.push_back(entry);
    }
  }

  const std::string& origin_;
  const bool with_lines_;
  std::vector<Open> open_;
  std::unordered_map<YAML::anchor_t, NodePointer> anchors_;
};

// One step of a path: a key, or an index when `key` is empty.
struct Step {
  std::string key;
  std::size_t index = 0;
};

// "stages[1].optimizer" as steps; an empty result when it is no path.
std::vector<Step> parse_path(const std::string& path) {
  std::vector<Step> steps;
  std::size_t i = 0;
  while (i < path.size()) {
    if (path[i] == '[') {
      const std::size_t end = path.find(']', i);
      if (end == std::string::npos || end == i + 1 || end - i > 10) return {};
      const std::string digits = path.substr(i + 1, end - i - 1);
      if (digits.find_first_not_of("0123456789") != std::string::npos || steps.empty()) return {};
      steps.push_back({"", std::stoul(digits)});
      i = end + 1;
      if (i < path.size() && path[i] == '.' && i + 1 < path.size() && path[i + 1] != '[') ++i;
    } else {
      const std::size_t end = std::min(path.find_first_of(".[", i), path.size());
      if (end == i) return {};
      steps.push_back({path.substr(i, end - i)});
      i = end;
      if (i < path.size() && path[i] == '.' && ++i == path.size()) return {};
    }
  }
  return steps;
}

// A copy of `node` with the value put where the steps lead. Copies only the nodes on the way: others may be shared by aliases.
NodePointer assign_at(const NodePointer& node, const std::vector<Step>& steps, std::size_t depth, const NodePointer& value,
                      bool from_option) {
  if (depth == steps.size()) return value;
  const Step& step = steps[depth];
  auto changed = node ? std::make_shared<Node>(*node) : std::make_shared<Node>();
  const bool is_key = !step.key.empty();
  const Node::Kind needed = is_key ? Node::Kind::mapping : Node::Kind::list;
  if (changed->kind == Node::Kind::null) {
    changed->kind = needed;
    changed->origin = value->origin;
  }
  const std::string asked = is_key ? concat("key \"", step.key, "\" of a section") : concat("entry [", step.index, "] of a list");
  require(changed->kind == needed, value->origin, ": found ", shown(*changed), ", expected the ", asked);
  NodePointer child;
  if (is_key) {
    auto entry =
        std::find_if(changed->entries.begin(), changed->entries.end(), [&](const Entry& e) { return e.key == step.key; });
    if (entry == changed->entries.end())
      entry = changed->entries.insert(entry, Entry{step.key, value->origin, nullptr, from_option});
    child = entry->value = assign_at(entry->value, steps, depth + 1, value, from_option);
    if (depth + 1 == steps.size()) entry->origin = value->origin, entry->from_option = from_option;
  } else {
    const std::size_t size = changed->items.size();
    require(step.index <= size, value->origin, ": found [", step.index, "], expected at most [", size, "], as the list has ",
            counted(size, "entry", "entries"));
    if (step.index == size) changed->items.push_back(nullptr);
    child = changed->items[step.index] = assign_at(changed->items[step.index], steps, depth + 1, value, from_option);
  }
  changed->height = std::max(changed->height, child->height + 1);
  require(changed->height <= deepest, value->origin, ": nested deeper than ", deepest, " levels");
  return changed;
}

}  // namespace build_detail

const Entry* Node::find(const std::string& key) const {
  for (const Entry& entry : entries)
    if (entry.key == key) return &entry;
  return nullptr;
}

NodePointer parse(const std::string& text, const std::string& origin, bool with_lines) {
  std::istringstream stream(text);
  try {
    YAML::Parser parser(stream);
    build_detail::Builder builder(origin, with_lines);
    parser.HandleNextDocument(builder);
    const NodePointer root = builder.root;
    require(!parser.HandleNextDocument(builder), origin, ": found several documents (---), expected one");
    return root;
  } catch (const YAML::DeepRecursion&) {
    fail(origin, ": nested deeper than ", build_detail::deepest, " levels");
  } catch (const YAML::Exception& error) {
    const bool located = with_lines && !error.mark.is_null();
    fail(origin, located ? concat(":", error.mark.line + 1, ":", error.mark.column + 1) : "", ": no valid YAML: ", error.msg);
  }
}

NodePointer assign(const NodePointer& root, const std::string& assignment, const std::string& option) {
  const std::string origin = option.empty() ? "--set " + assignment : option;
  const std::size_t equals = assignment.find('=');
  require(equals != std::string::npos && equals > 0, origin, ": expected key=value, for example optimizer.learning_rate=3e-4");
  const auto steps = build_detail::parse_path(assignment.substr(0, equals));
  require(!steps.empty(), origin, ": found \"", assignment.substr(0, equals),
          "\", expected a path such as stages[1].optimizer.type");
  const std::string text = assignment.substr(equals + 1);
  NodePointer value = parse(text.empty() ? "\"\"" : text, origin, false);
  return build_detail::assign_at(root, steps, 0, value, !option.empty());
}

std::string shown(const Node& node) {
  constexpr std::size_t longest = 60;
  switch (node.kind) {
    case Node::Kind::null:
      return "nothing";
    case Node::Kind::list:
      return "a list";
    case Node::Kind::mapping:
      return "a section";
    case Node::Kind::scalar:
      break;
  }
  std::string text = node.text.size() > longest ? node.text.substr(0, longest) + "…" : node.text;
  std::replace(text.begin(), text.end(), '\n', ' ');
  return "\"" + text + "\"";
}

}  // namespace molt::config_tree
