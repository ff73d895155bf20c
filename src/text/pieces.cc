#include "text/pieces.h"

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "text/component.h"

namespace molt::text {

Behavior parse_behavior(const std::string& name, const std::string& place) {
  return choose<Behavior>(name, place,
                          {{"Removed", Behavior::removed},
                           {"Isolated", Behavior::isolated},
                           {"MergedWithPrevious", Behavior::merged_with_previous},
                           {"MergedWithNext", Behavior::merged_with_next},
                           {"Contiguous", Behavior::contiguous}});
}

void apply_behavior(std::vector<Stretch>& stretches, Behavior behavior) {
  if (behavior == Behavior::isolated) return;
  if (behavior == Behavior::removed) {
    std::erase_if(stretches, [](const Stretch& stretch) { return stretch.match; });
    return;
  }
  // A match joins the stretch before it (behind it, going backwards) unless that is a match too.
  const auto join = [behavior](const Stretch& before, const Stretch& current) {
    return behavior == Behavior::contiguous ? before.match == current.match : current.match && !before.match;
  };
  std::vector<Stretch> joined;
  if (behavior == Behavior::merged_with_next) {
    for (std::size_t i = stretches.size(); i-- > 0;) {
      const bool joins = i + 1 < stretches.size() && join(stretches[i + 1], stretches[i]);
      if (joins)
        joined.back().range.begin = stretches[i].range.begin;
      else
        joined.push_back(stretches[i]);
    }
    std::reverse(joined.begin(), joined.end());
  } else {
    for (std::size_t i = 0; i < stretches.size(); ++i) {
      const bool joins = i > 0 && join(stretches[i - 1], stretches[i]);
      if (joins)
        joined.back().range.end = stretches[i].range.end;
      else
        joined.push_back(stretches[i]);
    }
  }
  stretches = std::move(joined);
}

Pattern::Pattern(const Json& component, const std::string& place_of_component) {
  const std::string place = place_of_component + ": pattern";
  const Json& pattern = member(component, "pattern", place_of_component);
  require(pattern.is_object() && pattern.size() == 1, place, ": expected an object with String or Regex alone");
  if (pattern.contains("Regex")) {
    regex_.emplace(get<std::string>(pattern, "Regex", place), place);
  } else {
    literal_ = get<std::string>(pattern, "String", place);
    require(!literal_.empty(), place, ": String: found an empty text, expected at least one character");
  }
}

bool Pattern::find(std::string_view text, std::size_t start, Range& found) const {
  if (regex_) return regex_->find(text, start, found.begin, found.end);
  found.begin = text.find(literal_, start);
  found.end = found.begin + literal_.size();
  return found.begin != text.npos;
}

void Pattern::cut(std::string_view text, std::vector<Stretch>& stretches) const {
  if (text.empty()) return;
  std::size_t start = 0, between = 0;
  bool matched = false;
  Range found;
  while (find(text, start, found)) {
    if (found.empty() && matched && found.end == between) {  // an empty match right behind another one: look one character on
      if (start == text.size()) break;
      start += character_length(text[start]);
      continue;
    }
    if (between < found.begin) stretches.push_back({{between, found.begin}, false});
    stretches.push_back({found, true});
    start = between = found.end;
    matched = true;
  }
  if (between < text.size()) stretches.push_back({{between, text.size()}, false});
}

void Pattern::replace(std::string& text, std::string_view by) const {
  std::vector<Stretch> stretches;
  cut(text, stretches);
  if (stretches.empty() || (stretches.size() == 1 && !stretches.front().match)) return;
  std::string replaced;
  replaced.reserve(text.size());
  for (const auto& stretch : stretches) {
    if (stretch.match)
      replaced += by;
    else
      replaced.append(text, stretch.range.begin, stretch.range.end - stretch.range.begin);
  }
  text = std::move(replaced);
}

}  // namespace molt::text
