// Numbers of things in messages.
#pragma once
#include <cstdint>
#include <string>

namespace molt {

// "1 sample", "2 samples", "0 samples"; `plural` where it is more than the noun with an s.
inline std::string counted(std::int64_t count, const std::string& noun, const std::string& plural = "") {
  return std::to_string(count) + " " + (count == 1 ? noun : plural.empty() ? noun + "s" : plural);
}

}  // namespace molt
