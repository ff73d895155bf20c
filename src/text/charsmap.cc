#include "text/charsmap.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstring>

#include "base/counted.h"
#include "base/error.h"
#include "text/unicode.h"

namespace molt::text {
namespace charsmap {

constexpr std::size_t longest_cluster = 5;  // in bytes, to be looked up as a whole

std::string from_base64(std::string_view text, const std::string& place) {
  constexpr std::string_view digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string bytes;
  std::uint32_t bits = 0;
  int waiting = 0;
  while (text.ends_with('=')) text.remove_suffix(1);
  for (const char character : text) {
    const std::size_t digit = digits.find(character);
    require(digit != std::string_view::npos, place, ": found a byte ", static_cast<int>(static_cast<unsigned char>(character)),
            ", expected base64");
    bits = bits << 6 | static_cast<std::uint32_t>(digit);
    waiting += 6;
    if (waiting < 8) continue;
    waiting -= 8;
    bytes.push_back(static_cast<char>(bits >> waiting));
  }
  return bytes;
}

// A unit of the trie: the label that leads to it, whether a key ends there, and what its place is xored with for its children's.
std::uint32_t label(std::uint32_t unit) {
  return unit & (1u << 31 | 0xffu);
}
bool ends_key(std::uint32_t unit) {
  return unit >> 8 & 1;
}
std::uint32_t offset(std::uint32_t unit) {
  return unit >> 10 << ((unit & 1u << 9) >> 6);
}
std::uint32_t value(std::uint32_t unit) {
  return unit & ~(1u << 31);
}

}  // namespace charsmap

Charsmap::Charsmap(std::string_view base64, const std::string& place) {
  const std::string bytes = charsmap::from_base64(base64, place);
  std::uint32_t trie = 0;
  require(bytes.size() >= sizeof trie, place, ": found ", counted(std::ssize(bytes), "byte"), ", expected a table of at least 4");
  std::memcpy(&trie, bytes.data(), sizeof trie);
  require(trie % sizeof trie == 0 && trie > 0 && trie <= bytes.size() - sizeof trie, place, ": found a trie of ", trie,
          " bytes, expected a multiple of 4 that the table's ", bytes.size(), " bytes hold");
  units_.resize(trie / sizeof trie);
  std::memcpy(units_.data(), bytes.data() + sizeof trie, trie);
  texts_ = bytes.substr(sizeof trie + trie);
  require(is_valid_utf8(texts_), place, ": found texts that are not UTF-8");
  for (char character = 0; character >= 0 && character < 127; ++character) {
    plain_[static_cast<std::size_t>(character)] =
        character != '\r' && character != '\n' && !replacement(std::string_view(&character, 1));
  }
}

std::optional<std::string_view> Charsmap::replacement(std::string_view text) const {
  std::size_t at = 0;
  std::size_t children = charsmap::offset(units_[0]);
  for (const char byte : text) {
    const auto wanted = static_cast<unsigned char>(byte);
    at = children ^ wanted;
    if (wanted == 0 || at >= units_.size() || charsmap::label(units_[at]) != wanted) return {};
    children = at ^ charsmap::offset(units_[at]);
    if (!charsmap::ends_key(units_[at])) continue;
    if (children >= units_.size()) return {};
    const std::size_t begin = charsmap::value(units_[children]);
    if (begin > texts_.size()) return {};
    const std::string_view found = std::string_view(texts_).substr(begin, texts_.find('\0', begin) - begin);
    return is_valid_utf8(found) ? std::optional(found) : std::nullopt;  // an offset into the middle of a character
  }
  return {};
}

void Charsmap::apply_to_cluster(std::string_view cluster, std::string& out) const {
  if (cluster.size() <= charsmap::longest_cluster) {
    if (const auto found = replacement(cluster)) {
      out += *found;
      return;
    }
  }
  for (std::size_t begin = 0; begin < cluster.size();) {
    const std::string_view character = cluster.substr(begin, character_length(cluster[begin]));
    out += replacement(character).value_or(character);
    begin += character.size();
  }
}

void Charsmap::apply(std::string& text) const {
  const auto plain = [this, &text](std::size_t i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    return byte < plain_.size() && plain_[byte];
  };
  std::string out;
  out.reserve(text.size());
  for (std::size_t begin = 0; begin < text.size();) {
    // Between two plain characters a cluster always ends.
    if (plain(begin) && (begin + 1 == text.size() || plain(begin + 1))) {
      out.push_back(text[begin++]);
      continue;
    }
    std::size_t end = begin;
    utf8proc_int32_t state = 0;
    auto before = static_cast<utf8proc_int32_t>(next_code_point(text, end));
    for (std::size_t next = end; next < text.size(); end = next) {
      const auto code_point = static_cast<utf8proc_int32_t>(next_code_point(text, next));
      if (utf8proc_grapheme_break_stateful(before, code_point, &state)) break;
      before = code_point;
    }
    apply_to_cluster(std::string_view(text).substr(begin, end - begin), out);
    begin = end;
  }
  text = std::move(out);
}

}  // namespace molt::text
