// What this program is, for runs to keep.
#pragma once
#include <map>
#include <string>

namespace molt {

// "molt": the version; "revision": of the checkout that it was built from ("a1b2c3d4e5f6-dirty"), or "unknown".
std::map<std::string, std::string> program_versions();

}  // namespace molt
