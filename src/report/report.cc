#include "report/report.h"

#include "base/error.h"
#include "report/collect.h"
#include "report/figures.h"
#include "report/page.h"
#include "report/ranking_tables.h"
#include "report/tables.h"

namespace molt::report {

Written write_report(const std::vector<fs::path>& runs, const fs::path& output) {
  const Collection collection = collect(runs);
  const Figures figures = draw_figures(collection);
  std::error_code error;
  fs::create_directories(output / "figures", error);
  require(!error, output.string(), ": cannot make the folder: ", error.message());
  for (const Figure* figure : figures.all()) {
    const fs::path base = output / "figures" / figure->name;
    write_file(base.string() + ".svg", figure->svg);
    write_file(base.string() + ".png", figure->png);
    write_file(base.string() + ".gp", figure->script);
  }
  write_file(output / "report.md", markdown_page(collection, figures));
  write_file(output / "report.html", html_page(collection, figures));
  std::string tables = collection.checkpoints.empty() ? "" : to_markdown(checkpoint_table(collection));
  const Table agreement = agreement_table(collection);
  if (!agreement.rows.empty()) tables += concat(tables.empty() ? "" : "\n", to_markdown(agreement));
  return {output / "report.html", tables};
}

}  // namespace molt::report
