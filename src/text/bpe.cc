#include "text/bpe.h"

#include <algorithm>
#include <bit>
#include <limits>

#include "text/component.h"
#include "text/unicode.h"

namespace molt::text {
namespace bpe {

constexpr std::uint64_t no_pair = ~std::uint64_t{0};
constexpr std::uint32_t no_rank = ~std::uint32_t{0};
constexpr std::int32_t none = -1;
constexpr std::string_view mark = "\u2581";
constexpr char32_t low_end = 0x800;
constexpr std::size_t cached_words = 1 << 15, longest_cached = 96;

std::uint64_t pair_of(std::int32_t left, std::int32_t right) {
  return std::uint64_t{static_cast<std::uint32_t>(left)} << 32 | static_cast<std::uint32_t>(right);
}

// A token of the word as it is so far, and what it and its right neighbour would become.
struct Symbol {
  std::int32_t id;
  std::int32_t previous, next;  // -1 at the ends
  std::uint32_t rank;           // no_rank: the pair is never merged, or this symbol is gone
  std::int32_t merged;
};

// The words seen last: each has one place, by its hash, and the newer one takes it.
class WordCache {
 public:
  struct Entry {
    std::string word;
    std::vector<std::int32_t> ids;
  };
  Entry& at(std::string_view word) { return entries_[std::hash<std::string_view>()(word) % cached_words]; }

 private:
  std::vector<Entry> entries_ = std::vector<Entry>(cached_words);
};

// Where the next "▁" that follows another character begins, after the first character of `text`; the end if nowhere.
std::size_t next_cut(std::string_view text) {
  std::size_t found = text.find(mark, 1);
  while (found != text.npos && text.substr(0, found).ends_with(mark)) found = text.find(mark, found + mark.size());
  return std::min(found, text.size());
}

}  // namespace bpe

MergeTable::MergeTable(std::size_t merges)
    : slots_(std::bit_ceil(2 * merges + 2), Merge{bpe::no_pair, 0, 0}), shift_(64 - std::countr_zero(slots_.size())) {}

std::size_t MergeTable::slot(std::uint64_t pair) const {
  std::size_t at = (pair * 0x9E3779B97F4A7C15u) >> shift_;  // multiplication by 2^64 / φ spreads the pairs
  while (slots_[at].pair != pair && slots_[at].pair != bpe::no_pair) at = (at + 1) & (slots_.size() - 1);
  return at;
}

void MergeTable::set(std::int32_t left, std::int32_t right, std::uint32_t rank, std::int32_t merged) {
  const auto pair = bpe::pair_of(left, right);
  slots_[slot(pair)] = {pair, rank, merged};
}

const MergeTable::Merge* MergeTable::find(std::int32_t left, std::int32_t right) const {
  const Merge& merge = slots_[slot(bpe::pair_of(left, right))];
  return merge.pair == bpe::no_pair ? nullptr : &merge;
}

struct Bpe::Workspace {
  std::vector<bpe::Symbol> symbols;
  std::vector<std::uint64_t> queue;  // a heap: rank in the upper half, position of the left symbol in the lower
  bpe::WordCache cache;
};

Bpe::Bpe(const Json& json, const std::string& place)
    : TokenModel(Vocabulary(member(json, "vocab", place), place + ": vocab")),
      unknown_(get_or<std::string>(json, "unk_token", "", place)),
      place_(place),
      has_unknown_(!unknown_.empty()),
      fuse_unknown_(get_or(json, "fuse_unk", false, place)),
      byte_fallback_(get_or(json, "byte_fallback", false, place)),
      ignore_merges_(get_or(json, "ignore_merges", false, place)) {
  require(get_or(json, "dropout", 0.0, place) == 0.0, place, ": dropout: expected none: it makes the ids of a text random");
  for (const char* affix : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const auto found = get_or<std::string>(json, affix, "", place);
    require(found.empty(), place, ": ", affix, ": found \"", found, "\", expected none");
  }
  read_merges(json, place);
  index_characters();
}

Bpe::~Bpe() = default;

void Bpe::read_merges(const Json& json, const std::string& place) {
  const Json& list = list_member(json, "merges", place);
  merges_ = MergeTable(list.size());
  bool reaches_across = false;
  std::uint32_t rank = 0;
  for (std::size_t i = 0; i < list.size(); ++i) {
    const Json& item = list[i];
    std::string left, right;
    const auto bad = [&](auto&&... problem) { fail(item_place(place, "merges", i), ": ", problem...); };
    if (item.is_string()) {
      const auto& text = item.get_ref<const std::string&>();
      if (text.starts_with("#version")) continue;
      const auto space = text.find(' ');
      if (space == text.npos || text.find(' ', space + 1) != text.npos) bad("found \"", text, "\", expected two tokens");
      left = text.substr(0, space), right = text.substr(space + 1);
    } else {
      if (!item.is_array() || item.size() != 2 || !item[0].is_string() || !item[1].is_string()) bad("expected two tokens");
      left = item[0].get<std::string>(), right = item[1].get<std::string>();
    }
    const std::string whole = left + right;
    const auto id = [&](const std::string& token) {
      const auto found = vocabulary().id(token);
      if (!found) bad("the token \"", token, "\" is not in the vocabulary");
      return *found;
    };
    const std::int32_t left_id = id(left), right_id = id(right);
    merges_.set(left_id, right_id, rank++, id(whole));
    reaches_across = reaches_across || (!whole.empty() && bpe::next_cut(whole) < whole.size());
  }
  cut_at_marks_ = !reaches_across && !ignore_merges_ && vocabulary().id(bpe::mark);
}

void Bpe::index_characters() {
  low_characters_.assign(bpe::low_end, bpe::none);
  for (char32_t c = 0; c < bpe::low_end; ++c) {
    std::string character;
    append_code_point(c, character);
    low_characters_[c] = vocabulary().id(character).value_or(bpe::none);
  }
  for (int byte = 0; byte < 256; ++byte) {
    constexpr const char* digits = "0123456789ABCDEF";
    byte_tokens_[byte] = vocabulary().id(concat("<0x", digits[byte / 16], digits[byte % 16], '>')).value_or(bpe::none);
  }
}

std::int32_t Bpe::character_id(std::string_view character, char32_t code_point) const {
  if (code_point < bpe::low_end) return low_characters_[code_point];
  return vocabulary().id(character).value_or(bpe::none);
}

std::int32_t Bpe::unknown_id(std::string_view character) const {
  const auto id = vocabulary().id(unknown_);
  require(id.has_value(), place_, ": the character \"", character, "\" is not in the vocabulary, nor is the unk_token \"",
          unknown_, '"');
  return *id;
}

// The word's characters as symbols. A character without a token becomes its bytes, if byte_fallback is on and they have tokens,
// else the unknown token, or nothing where there is none. An unknown token waits for the next known character before it takes its
// place (so `tokenizers` does it: byte tokens that follow it overtake it).
void Bpe::start(std::string_view word, Workspace& space) const {
  auto& symbols = space.symbols;
  symbols.clear();
  const auto add = [&symbols](std::int32_t id) {
    const auto at = static_cast<std::int32_t>(symbols.size());
    symbols.push_back({id, at - 1, at + 1, bpe::no_rank, bpe::none});
  };
  std::int32_t waiting = bpe::none;
  const auto place_waiting = [&] {
    if (waiting != bpe::none) add(waiting);
    waiting = bpe::none;
  };
  for (std::size_t position = 0; position < word.size();) {
    const std::size_t begin = position;
    const char32_t code_point = next_code_point(word, position);
    const std::string_view character = word.substr(begin, position - begin);
    if (const auto id = character_id(character, code_point); id != bpe::none) {
      place_waiting();
      add(id);
      continue;
    }
    const auto byte_token = [this](char byte) { return byte_tokens_[static_cast<unsigned char>(byte)]; };
    if (byte_fallback_ && std::none_of(character.begin(), character.end(), [&](char b) { return byte_token(b) == bpe::none; })) {
      for (const char byte : character) add(byte_token(byte));
    } else if (has_unknown_) {
      if (!fuse_unknown_) place_waiting();
      waiting = unknown_id(character);
    }
  }
  place_waiting();
  if (!symbols.empty()) symbols.back().next = bpe::none;
}

// Notes what the symbol and its right neighbour would become.
void Bpe::consider(std::int32_t left, Workspace& space) const {
  auto& symbol = space.symbols[left];
  symbol.rank = bpe::no_rank;
  if (symbol.next == bpe::none) return;
  const auto* merge = merges_.find(symbol.id, space.symbols[symbol.next].id);
  if (!merge) return;
  symbol.rank = merge->rank;
  symbol.merged = merge->merged;
  space.queue.push_back(std::uint64_t{merge->rank} << 32 | static_cast<std::uint32_t>(left));
}

void Bpe::merge(Workspace& space) const {
  auto& symbols = space.symbols;
  auto& queue = space.queue;
  queue.clear();
  for (std::size_t i = 0; i < symbols.size(); ++i) consider(static_cast<std::int32_t>(i), space);
  std::make_heap(queue.begin(), queue.end(), std::greater<>());
  const auto consider_later = [&](std::int32_t left) {
    const std::size_t before = queue.size();
    consider(left, space);
    if (queue.size() > before) std::push_heap(queue.begin(), queue.end(), std::greater<>());
  };
  while (!queue.empty()) {
    std::pop_heap(queue.begin(), queue.end(), std::greater<>());
    const auto best = queue.back();
    queue.pop_back();
    const auto at = static_cast<std::int32_t>(best & 0xFFFFFFFFu);
    auto& left = symbols[at];
    if (left.rank != best >> 32) continue;  // the pair has changed since
    auto& right = symbols[left.next];
    left.id = left.merged;
    left.next = right.next;
    right.rank = bpe::no_rank;
    if (left.next != bpe::none) symbols[left.next].previous = at;
    consider_later(at);
    if (left.previous != bpe::none) consider_later(left.previous);
  }
}

void Bpe::tokenize_word(std::string_view word, Workspace& space, std::vector<std::int32_t>& ids) const {
  auto* cached = word.size() <= bpe::longest_cached ? &space.cache.at(word) : nullptr;
  if (cached && cached->word == word) {
    ids.insert(ids.end(), cached->ids.begin(), cached->ids.end());
    return;
  }
  const std::size_t before = ids.size();
  if (const auto whole = ignore_merges_ ? vocabulary().id(word) : std::nullopt) {
    ids.push_back(*whole);
  } else {
    require(word.size() < static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max()), place_, ": a piece of text of ",
            word.size(), " bytes is too long");
    start(word, space);
    merge(space);
    for (std::int32_t at = space.symbols.empty() ? bpe::none : 0; at != bpe::none; at = space.symbols[at].next) {
      ids.push_back(space.symbols[at].id);
    }
  }
  if (cached) {
    cached->word = word;
    cached->ids.assign(ids.begin() + static_cast<std::ptrdiff_t>(before), ids.end());
  }
}

void Bpe::tokenize(const Pieces& pieces, std::vector<std::int32_t>& ids) const {
  const auto space = workspaces_.borrow();
  for (const Range range : pieces.ranges) {
    std::string_view rest = pieces.view(range);
    while (!rest.empty()) {
      const std::size_t length = cut_at_marks_ ? bpe::next_cut(rest) : rest.size();
      tokenize_word(rest.substr(0, length), *space, ids);
      rest.remove_prefix(length);
    }
  }
}

}  // namespace molt::text
