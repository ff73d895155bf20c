// Byte-pair encoding (Sennrich et al. 2016): a piece starts as its characters; again and again the pair of neighbours that was
// learned first becomes one token.
#pragma once
#include <array>

#include "base/per_thread.h"
#include "text/model.h"

namespace molt::text {

// What two neighbouring tokens become, found by the pair. A hash table with open addressing: it is asked at every merge.
class MergeTable {
 public:
  struct Merge {
    std::uint64_t pair;  // left id in the upper half
    std::uint32_t rank;  // smaller: learned earlier
    std::int32_t merged;
  };

  explicit MergeTable(std::size_t merges = 0);
  void set(std::int32_t left, std::int32_t right, std::uint32_t rank, std::int32_t merged);
  // Null where the pair is never merged.
  const Merge* find(std::int32_t left, std::int32_t right) const;

 private:
  std::size_t slot(std::uint64_t pair) const;
  std::vector<Merge> slots_;
  int shift_ = 0;  // 64 - log2(slots)
};

class Bpe : public TokenModel {
 public:
  // Options: merges as "left right" or [left, right], unk_token, fuse_unk, byte_fallback, ignore_merges. Dropout and the affixes
  // continuing_subword_prefix and end_of_word_suffix are refused.
  Bpe(const Json& json, const std::string& place);
  ~Bpe() override;
  // n log n in the length of a piece; words seen lately come from a cache of bounded size.
  void tokenize(const Pieces& pieces, std::vector<std::int32_t>& ids) const override;

 private:
  struct Workspace;

  void read_merges(const Json& json, const std::string& place);
  void index_characters();
  std::int32_t character_id(std::string_view character, char32_t code_point) const;
  std::int32_t unknown_id(std::string_view character) const;
  void tokenize_word(std::string_view word, Workspace& space, std::vector<std::int32_t>& ids) const;
  void start(std::string_view word, Workspace& space) const;
  void merge(Workspace& space) const;
  void consider(std::int32_t left, Workspace& space) const;

  MergeTable merges_;
  std::string unknown_, place_;
  bool has_unknown_, fuse_unknown_, byte_fallback_, ignore_merges_;
  // No merge reaches across the beginning of a "▁" that follows another character: text is cut there, so that words can be cached
  // where no pre-tokenizer cuts it.
  bool cut_at_marks_ = false;
  std::vector<std::int32_t> low_characters_;     // by code point; -1 where there is no token
  std::array<std::int32_t, 256> byte_tokens_{};  // "<0x00>" …; -1 where there is none

  mutable PerThread<Workspace> workspaces_;
};

}  // namespace molt::text
