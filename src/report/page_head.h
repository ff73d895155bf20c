// How every page begins.
#pragma once
#include <string>

namespace molt::report {

// Up to the page's heading, with the styles that all pages share; what follows ends with page_end. Self-contained: nothing is
// loaded, no script runs; light or dark as the reader's system is.
std::string page_head(const std::string& title);
extern const char* const page_end;

}  // namespace molt::report
