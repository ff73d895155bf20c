// `molt report`: from the folders of runs to a page, figures and tables.
#pragma once
#include <string>
#include <vector>

#include "base/files.h"

namespace molt::report {

struct Written {
  fs::path page;       // report.html
  std::string tables;  // of checkpoints and of how rankings agree, in Markdown; empty without either
};

// Writes report.html, report.md and figures/NAME.{svg,png,gp} into `output`, over those of an earlier report. The scripts (.gp)
// draw the figures again when gnuplot runs them. UserError as collect() and draw() say.
Written write_report(const std::vector<fs::path>& runs, const fs::path& output);

}  // namespace molt::report
