// The text between normalizer and model: ranges of one buffer, and how patterns cut them.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "text/regex.h"
#include "text/unicode.h"

namespace molt::text {

struct Range {
  std::size_t begin, end;
  bool empty() const { return begin == end; }
};

struct Pieces {
  std::string text;           // valid UTF-8
  std::vector<Range> ranges;  // in order; none is empty
  bool starts_input = true;   // the first range begins where the user's text begins

  std::string_view view(Range range) const { return std::string_view(text).substr(range.begin, range.end - range.begin); }
};

// A stretch of text that a pattern matched, or that lies between two matches.
struct Stretch {
  Range range;
  bool match;
};

enum class Behavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };

// "Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous".
Behavior parse_behavior(const std::string& name, const std::string& place);

// Joins stretches that stay together and drops those that go: "the-final--countdown" cut at "-" gives, by behavior,
//   removed: the final countdown            merged_with_previous: the- final- - countdown
//   isolated: the - final - - countdown     merged_with_next: the -final - -countdown     contiguous: the - final -- countdown
void apply_behavior(std::vector<Stretch>& stretches, Behavior behavior);

// A member {"String": text} or {"Regex": pattern} of a component.
class Pattern {
 public:
  Pattern(const Json& component, const std::string& place);
  explicit Pattern(Regex regex) : regex_(std::move(regex)) {}

  // Appends stretches that cover `text` from end to end.
  void cut(std::string_view text, std::vector<Stretch>& stretches) const;
  void replace(std::string& text, std::string_view by) const;

 private:
  std::string literal_;
  std::optional<Regex> regex_;
  bool find(std::string_view text, std::size_t start, Range& found) const;
};

// Replaces every piece by what is left of it: `cut(view, stretches)` appends stretches of the piece, from end to end.
template <class Cut>
void split_pieces(Pieces& pieces, Behavior behavior, const Cut& cut) {
  std::vector<Range> ranges;
  std::vector<Stretch> stretches;
  for (const Range piece : pieces.ranges) {
    stretches.clear();
    cut(pieces.view(piece), stretches);
    apply_behavior(stretches, behavior);
    for (const auto& stretch : stretches) {
      if (!stretch.range.empty()) ranges.push_back({piece.begin + stretch.range.begin, piece.begin + stretch.range.end});
    }
  }
  pieces.starts_input &= !ranges.empty() && ranges.front().begin == pieces.ranges.front().begin;
  pieces.ranges = std::move(ranges);
}

// The stretches of a text by a property of its characters: each character with the property is a match of its own.
template <class Property>
void cut_characters(std::string_view text, std::vector<Stretch>& stretches, const Property& property) {
  std::size_t between = 0;
  for (std::size_t position = 0; position < text.size();) {
    const std::size_t begin = position;
    if (!property(next_code_point(text, position))) continue;
    if (between < begin) stretches.push_back({{between, begin}, false});
    stretches.push_back({{begin, position}, true});
    between = position;
  }
  if (between < text.size()) stretches.push_back({{between, text.size()}, false});
}

// Rewrites every piece: `write(view, first_of_input, out)` appends the new text of the piece.
template <class Write>
void rewrite_pieces(Pieces& pieces, const Write& write) {
  std::string text;
  text.reserve(pieces.text.size() + pieces.text.size() / 2);
  bool first = pieces.starts_input;
  for (Range& piece : pieces.ranges) {
    const std::size_t begin = text.size();
    write(pieces.view(piece), first, text);
    piece = {begin, text.size()};
    first = false;
  }
  pieces.text = std::move(text);
}

}  // namespace molt::text
