#include "text/metaspace.h"

#include "text/component.h"
#include "text/unicode.h"

namespace molt::text {

Metaspace::Metaspace(const Json& json, const std::string& place) {
  mark = get<std::string>(json, "replacement", place);
  require(!mark.empty() && character_length(mark[0]) == mark.size(), place, ": replacement: found \"", mark,
          "\", expected one character");
  // Files from before prepend_scheme say add_prefix_space.
  const std::string scheme =
      get_or<std::string>(json, "prepend_scheme", get_or(json, "add_prefix_space", true, place) ? "always" : "never", place);
  prepend = choose<Prepend>(scheme, place + ": prepend_scheme",
                            {{"always", Prepend::always}, {"first", Prepend::first}, {"never", Prepend::never}});
  split = get_or(json, "split", true, place);
}

}  // namespace molt::text
