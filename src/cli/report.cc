#include "report/report.h"

#include <iostream>

#include "cli/commands.h"

namespace molt {

Command report_command() {
  return {"report", "Tables and figures of runs, as one page", [](Arguments& arguments) -> std::function<int()> {
            struct Options {
              std::vector<std::string> runs;
              std::string output;
            };
            auto options = std::make_shared<Options>();
            arguments.positional(
                "RUN", options->runs,
                "Folders of molt distill, train or evaluate, files of molt bench --json and molt rank; joined by model");
            arguments.option("--output", options->output, "Folder for report.html, report.md and figures/", true);
            return [options] {
              const auto written = report::write_report({options->runs.begin(), options->runs.end()}, options->output);
              if (!written.tables.empty()) std::cout << written.tables << "\n";
              std::cout << written.page.string() << "\n";
              return 0;
            };
          }};
}

}  // namespace molt
