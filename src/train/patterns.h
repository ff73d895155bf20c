// Glob patterns over canonical parameter names: "*" stands for any characters (dots included), "?" for one.
#pragma once
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace molt {

bool matches_glob(std::string_view pattern, std::string_view name);
bool matches_any(const std::vector<std::string>& patterns, std::string_view name);

// The names that a list of patterns picks: the last pattern that matches a name decides, and one with a leading "!" excludes, so
// {"layers.*", "!*norm*"} is every layer without its norms. A pattern that matches no name is a UserError of `place`, and so is
// an empty choice.
std::set<std::string> select_names(const std::vector<std::string>& patterns, const std::vector<std::string>& names,
                                   const std::string& place);

}  // namespace molt
