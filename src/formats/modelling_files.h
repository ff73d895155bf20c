// The Python files that go into exports of hybrids (python/molt_hybrid), embedded in the program.
#pragma once
#include <map>
#include <string>

namespace molt {

// Content by file name.
const std::map<std::string, std::string>& hybrid_modelling_files();

}  // namespace molt
