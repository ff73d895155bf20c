#include "train/patterns.h"

#include "base/config.h"
#include "base/error.h"

namespace molt {

bool matches_glob(std::string_view pattern, std::string_view name) {
  constexpr std::size_t none = std::string_view::npos;
  std::size_t p = 0, n = 0, star = none, resume = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      resume = n;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == name[n])) {
      ++p;
      ++n;
    } else if (star != none) {  // let the last star take one more character
      p = star + 1;
      n = ++resume;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

bool matches_any(const std::vector<std::string>& patterns, std::string_view name) {
  for (const std::string& pattern : patterns) {
    if (matches_glob(pattern, name)) return true;
  }
  return false;
}

std::set<std::string> select_names(const std::vector<std::string>& patterns, const std::vector<std::string>& names,
                                   const std::string& place) {
  std::set<std::string> chosen;
  for (const std::string& pattern : patterns) {
    const bool excludes = pattern.starts_with('!');
    const std::string_view glob = std::string_view(pattern).substr(excludes ? 1 : 0);
    bool matched = false;
    for (const std::string& name : names) {
      if (!matches_glob(glob, name)) continue;
      matched = true;
      if (excludes) {
        chosen.erase(name);
      } else {
        chosen.insert(name);
      }
    }
    if (matched) continue;
    const std::string near = nearest(std::string(glob), names);
    fail(place, ": found \"", pattern, "\", which no parameter's name matches",
         near.empty() ? "" : concat("; the nearest name is ", near));
  }
  require(!chosen.empty(), place, ": found patterns that leave no parameter, expected at least one");
  return chosen;
}

}  // namespace molt
