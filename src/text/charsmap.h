// The table of replacements that SentencePiece compiles its normalization into, as tokenizer.json's `Precompiled` holds it.
#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace molt::text {

// Layout: uint32 n | n bytes of a double array trie of keys (Darts-clone: github.com/s-yata/darts-clone), little-endian uint32
// units whose values are offsets into | texts, each ended by a zero byte.
class Charsmap {
 public:
  // From base64. UserError, beginning with `place`, for what is no such table.
  Charsmap(std::string_view base64, const std::string& place);

  // What tokenizers makes of a text: each grapheme cluster of at most 5 bytes that begins with a key becomes the text of the
  // shortest such key, and so does each character of the other clusters.
  void apply(std::string& text) const;

 private:
  std::optional<std::string_view> replacement(std::string_view text) const;
  void apply_to_cluster(std::string_view cluster, std::string& out) const;

  std::vector<std::uint32_t> units_;
  std::string texts_;
  std::array<bool, 128> plain_{};  // ASCII characters, but line ends, that stay as they are
};

}  // namespace molt::text
