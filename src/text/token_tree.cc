#include "text/token_tree.h"

namespace molt::text {

void TokenTree::add(std::string_view content, std::int32_t value) {
  std::uint32_t at = 0;
  for (const char byte : content) {
    auto& children = nodes_[at].children;
    const auto child = std::lower_bound(children.begin(), children.end(), std::pair(byte, std::uint32_t{0}));
    if (child != children.end() && child->first == byte) {
      at = child->second;
    } else {
      at = static_cast<std::uint32_t>(nodes_.size());
      children.insert(child, {byte, at});
      nodes_.emplace_back();
    }
  }
  nodes_[at].value = value;
}

std::int32_t TokenTree::longest(std::string_view text, std::size_t& length) const {
  std::int32_t value = -1;
  each_prefix(text, [&](std::int32_t found, std::size_t end) { value = found, length = end; });
  return value;
}

}  // namespace molt::text
