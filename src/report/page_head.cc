#include "report/page_head.h"

#include "base/error.h"
#include "report/gnuplot.h"
#include "report/text.h"

namespace molt::report {
namespace page_styles {

constexpr const char* rules = R"(
  * { box-sizing: border-box; }
  body { margin: 0; background: var(--ground); color: var(--ink); font: 16px/1.55 system-ui, "Segoe UI", sans-serif; }
  main { max-width: 60rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
  h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 1rem; overflow-wrap: anywhere; }
  h2 { font-size: 1.25rem; margin: 2.75rem 0 0.75rem; padding-bottom: 0.3rem; border-bottom: 1px solid var(--faint); }
  .lead { font-size: 1.1rem; max-width: 46rem; }
  .note, figcaption { color: var(--muted); font-size: 0.875rem; }
  .wide { overflow-x: auto; }
  table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.925rem; }
  th, td { padding: 0.4rem 1.1rem 0.4rem 0; text-align: left; white-space: nowrap; border-bottom: 1px solid var(--faint); }
  thead th { color: var(--muted); font-weight: 500; }
  tbody th { font-weight: 600; }
  .number { text-align: right; }
  figure { margin: 1rem 0 2rem; overflow-x: auto; }
  figure svg { display: block; width: 100%; min-width: 34rem; height: auto; }
  pre { background: var(--raised); border-radius: 6px; padding: 0.9rem 1.1rem; margin: 0.4rem 0 1.2rem; max-height: 24rem;
        overflow: auto; white-space: pre-wrap; overflow-wrap: anywhere; font: 0.875rem/1.5 ui-monospace, monospace; }
  details { margin: 0.3rem 0; }
  details details { margin-left: 1.25rem; }
  summary { cursor: pointer; }
)";

std::string style() {
  std::string light = "--ground: #ffffff; --raised: #f6f8fa;", dark = "--ground: #0d1117; --raised: #161b22;";
  for (const Colour& colour : all_colours) {
    light += concat(" --", colour.name, ": ", colour.light, ";");
    dark += concat(" --", colour.name, ": ", colour.dark, ";");
  }
  return concat("  :root { color-scheme: light dark; ", light, " }\n  @media (prefers-color-scheme: dark) { :root { ", dark,
                " } }", rules);
}

}  // namespace page_styles

const char* const page_end = "</main>\n</body>\n</html>\n";

std::string page_head(const std::string& title) {
  const std::string words = escape_html(title);
  return concat(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>",
      words, "</title>\n<style>\n", page_styles::style(), "</style>\n</head>\n<body>\n<main>\n<h1>", words, "</h1>\n");
}

}  // namespace molt::report
