// A set of byte strings as a tree of bytes: which of them a text begins with.
#pragma once
#include <algorithm>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace molt::text {

class TokenTree {
 public:
  void add(std::string_view content, std::int32_t value);
  // The value of the longest string that `text` begins with and its length; -1 if there is none.
  std::int32_t longest(std::string_view text, std::size_t& length) const;
  // Calls found(value, length) for every string that `text` begins with, the shortest first.
  template <class Found>
  void each_prefix(std::string_view text, const Found& found) const;
  bool empty() const { return nodes_.size() == 1; }

 private:
  struct Node {
    std::vector<std::pair<char, std::uint32_t>> children;  // sorted by byte
    std::int32_t value = -1;
  };
  std::vector<Node> nodes_ = std::vector<Node>(1);
};

template <class Found>
void TokenTree::each_prefix(std::string_view text, const Found& found) const {
  std::uint32_t at = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto& children = nodes_[at].children;
    const auto child = std::lower_bound(children.begin(), children.end(), std::pair(text[i], std::uint32_t{0}));
    if (child == children.end() || child->first != text[i]) return;
    at = child->second;
    if (nodes_[at].value >= 0) found(nodes_[at].value, i + 1);
  }
}

}  // namespace molt::text
