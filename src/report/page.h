// A report as one HTML page and as Markdown.
#pragma once
#include <string>

#include "report/collect.h"
#include "report/figures.h"

namespace molt::report {

// Self-contained: styles and figures are inside, nothing is loaded, no script runs; light or dark as the reader's system is.
std::string html_page(const Collection& collection, const Figures& figures);

// Figures are linked as figures/NAME.svg.
std::string markdown_page(const Collection& collection, const Figures& figures);

}  // namespace molt::report
