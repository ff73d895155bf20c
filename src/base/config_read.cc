#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/config.h"
#include "base/config_include.h"
#include "base/config_tree.h"
#include "base/error.h"

namespace molt {

namespace config_read {

using config_tree::Entry;
using config_tree::Node;
using config_tree::NodePointer;
using Kind = Node::Kind;

bool parse(const std::string& text, bool& value) {
  std::string word = text;
  std::transform(word.begin(), word.end(), word.begin(), [](unsigned char c) { return std::tolower(c); });
  value = word == "true" || word == "yes" || word == "on";
  return value || word == "false" || word == "no" || word == "off";
}

// Without a plus sign and without underscores between digits; "" when there are others.
std::string digits_of(const std::string& text) {
  std::string digits;
  for (std::size_t i = text.starts_with('+') ? 1 : 0; i < text.size(); ++i) {
    const auto is_digit = [&](std::size_t at) { return at < text.size() && std::isdigit(static_cast<unsigned char>(text[at])); };
    if (text[i] != '_')
      digits += text[i];
    else if (i == 0 || !is_digit(i - 1) || !is_digit(i + 1))
      return "";
  }
  return digits;
}

bool parse(const std::string& text, double& value) {
  const std::string digits = digits_of(text);
  if (digits == ".inf" || digits == "-.inf") {
    value = digits[0] == '-' ? -INFINITY : INFINITY;
    return true;
  }
  const char* end = digits.data() + digits.size();
  const auto [stop, error] = std::from_chars(digits.data(), end, value);
  return error == std::errc() && stop == end && !std::isnan(value);
}

bool parse(const std::string& text, std::int64_t& value) {
  const std::string digits = digits_of(text);
  const char* end = digits.data() + digits.size();
  const auto [stop, error] = std::from_chars(digits.data(), end, value);
  if (error == std::errc() && stop == end) return true;
  double number = 0;
  if (error == std::errc::result_out_of_range || !parse(text, number)) return false;
  if (number != std::floor(number) || std::abs(number) > 0x1p53) return false;
  value = static_cast<std::int64_t>(number);
  return true;
}

bool parse(const std::string& text, std::string& value) {
  value = text;
  return true;
}

const char* expected(bool) {
  return "true or false";
}
const char* expected(std::int64_t) {
  return "a whole number";
}
const char* expected(double) {
  return "a number";
}
const char* expected(const std::string&) {
  return "a text";
}

std::string did_you_mean(const std::string& word, const std::vector<std::string>& words) {
  const std::string near = nearest(word, words);
  return near.empty() ? "" : " (did you mean \"" + near + "\"?)";
}

std::string join(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

// Fills the struct of one section, and remembers the keys that its visit named, to know the unknown ones.
class Reader final : public ConfigVisitor {
 public:
  // `node`: a mapping, or null for a section that is not in the file.
  Reader(const std::string& source, std::string path, const Node* node) : source_(source), path_(std::move(path)), node_(node) {
    require(!node_ || node_->kind == Kind::mapping || node_->kind == Kind::null, node_ ? node_->origin : "", ": ", path_,
            path_.empty() ? "" : ": ", "found ", node_ ? shown(*node_) : "", ", expected a section of keys and values");
  }

  void read(const Visit& visit) {
    visit(*this);
    if (!node_) return;
    for (const Entry& entry : node_->entries) {
      if (std::find(known_.begin(), known_.end(), entry.key) != known_.end()) continue;
      const std::string near = did_you_mean(entry.key, known_);
      const std::string hint = near.empty() ? " (known here: " + join(known_) + ")" : near;
      require(!entry.from_option, entry.origin, ": no setting of ", source_, hint);
      fail(entry.origin, ": ", path_to(entry.key), ": unknown key", hint);
    }
  }

  void field(const char* name, bool& value, const char*) override { scalar(name, value); }
  void field(const char* name, std::int64_t& value, const char*) override { scalar(name, value); }
  void field(const char* name, double& value, const char*) override { scalar(name, value); }
  void field(const char* name, std::string& value, const char*) override { scalar(name, value); }
  void field(const char* name, std::vector<std::int64_t>& value, const char*) override { scalars(name, value); }
  void field(const char* name, std::vector<double>& value, const char*) override { scalars(name, value); }
  void field(const char* name, std::vector<std::string>& value, const char*) override { scalars(name, value); }
  void field(const char* name, std::optional<std::int64_t>& value, const char*) override { optional_scalar(name, value); }
  void field(const char* name, std::optional<double>& value, const char*) override { optional_scalar(name, value); }

  void choice(const char* name, std::string& value, const std::vector<std::string>& words, const char*) override {
    const Entry* entry = take(name);
    if (!entry) return;
    std::string word;
    convert(*entry->value, entry->origin, path_to(name), word);
    require(std::find(words.begin(), words.end(), word) != words.end(), entry->origin, ": ", path_to(name), ": found ",
            shown(*entry->value), ", expected one of ", join(words), did_you_mean(word, words));
    value = word;
  }

  void section(const char* name, const char*, const Visit& visit) override {
    const Entry* entry = take(name);
    Reader(source_, path_to(name), entry ? entry->value.get() : nullptr).read(visit);
  }

  void optional_section(const char* name, const char*, bool, const Visit& visit, const std::function<void()>& clear) override {
    const Entry* entry = take(name);
    if (!entry) return;
    if (entry->value->kind == Kind::null)
      clear();
    else
      Reader(source_, path_to(name), entry->value.get()).read(visit);
  }

  void list(const char* name, const char*, std::size_t, const std::function<void(std::size_t, ConfigVisitor&)>& visit,
            const std::function<void()>& clear) override {
    const Entry* entry = take(name);
    if (!entry) return;
    require_list(*entry, name);
    clear();
    for (std::size_t i = 0; i < entry->value->items.size(); ++i)
      Reader(source_, path_to(concat(name, "[", i, "]")), entry->value->items[i].get()).read([&](ConfigVisitor& v) {
        visit(i, v);
      });
  }

  void map(const char* name, const char*, const std::vector<std::string>&,
           const std::function<void(const std::string&, ConfigVisitor&)>& visit, const std::function<void()>&) override {
    const Entry* entry = take(name);
    if (!entry) return;
    const Reader sections(source_, path_to(name), entry->value.get());
    for (const Entry& child : entry->value->entries)
      Reader(source_, sections.path_to(child.key), child.value.get()).read([&](ConfigVisitor& v) { visit(child.key, v); });
  }

  std::string place() const override { return path_.empty() ? source_ : source_ + ": " + path_; }
  bool reading() const override { return true; }

 private:
  std::string path_to(const std::string& name) const { return path_.empty() ? name : path_ + "." + name; }

  const Entry* take(const char* name) {
    known_.emplace_back(name);
    return node_ ? node_->find(name) : nullptr;
  }

  void require_list(const Entry& entry, const char* name) const {
    require(entry.value->kind == Kind::list, entry.origin, ": ", path_to(name), ": found ", shown(*entry.value),
            ", expected a list ([] for an empty one)");
  }

  template <class T>
  static void convert(const Node& node, const std::string& origin, const std::string& path, T& value) {
    T parsed{};
    require(node.kind == Kind::scalar && parse(node.text, parsed), origin, ": ", path, ": found ", shown(node), ", expected ",
            expected(parsed));
    value = std::move(parsed);
  }

  template <class T>
  void scalar(const char* name, T& value) {
    if (const Entry* entry = take(name)) convert(*entry->value, entry->origin, path_to(name), value);
  }

  template <class T>
  void optional_scalar(const char* name, std::optional<T>& value) {
    const Entry* entry = take(name);
    if (!entry) return;
    value.reset();
    if (entry->value->kind != Kind::null) convert(*entry->value, entry->origin, path_to(name), value.emplace());
  }

  template <class T>
  void scalars(const char* name, std::vector<T>& value) {
    const Entry* entry = take(name);
    if (!entry) return;
    require_list(*entry, name);
    value.clear();
    for (const NodePointer& item : entry->value->items) {
      T element{};
      convert(*item, item->origin, path_to(concat(name, "[", value.size(), "]")), element);
      value.push_back(std::move(element));
    }
  }

  const std::string& source_;
  const std::string path_;
  const Node* node_;
  std::vector<std::string> known_;
};

}  // namespace config_read

namespace config_read {

void read_tree(config_tree::NodePointer root, const std::string& place, const Overrides& overrides,
               const ConfigVisitor::Visit& visit) {
  for (const Override& each : overrides.all) root = config_tree::assign(root, each.assignment, each.option);
  Reader(place, "", root.get()).read(visit);
}

}  // namespace config_read

void read_config(const fs::path& path, const Overrides& overrides, const ConfigVisitor::Visit& visit) {
  config_read::read_tree(config_tree::read_with_includes(path), path.string(), overrides, visit);
}

void parse_config(const std::string& text, const std::string& place, const Overrides& overrides,
                  const ConfigVisitor::Visit& visit) {
  config_read::read_tree(config_tree::parse(text, place, true), place, overrides, visit);
}

}  // namespace molt
