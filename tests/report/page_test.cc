#include "report/page.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <optional>

#include "report/frontier.h"
#include "report/report.h"
#include "report/run_folders.h"
#include "report/tables.h"
#include "report/text.h"

namespace molt::report {

using testing_report::RunFolders;

namespace page_tests {

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t found = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size())) ++found;
  return found;
}

class Page : public RunFolders {
 protected:
  std::string written(const std::string& name) const { return read_file(folder / "out" / name); }
  void report(const std::vector<std::string>& runs) const {
    std::vector<fs::path> paths;
    for (const std::string& run : runs) paths.push_back(folder / run);
    write_report(paths, folder / "out");
  }
};

TEST_F(Page, HoldsNumbersAndFigures) {
  write_recipe();
  write_throughput();
  report({"recipe", "bench.json"});
  const std::string html = written("report.html");
  for (const char* part :
       {"<h1>tiny</h1>", "mmr-2", "2 Mamba of 4", "4 attention", "100 k", "93.0 ± 1.1 %", "96.0 ± 0.9 %", "0.0625 reverse KL",
        "1.250 cross-entropy", "sft-2 (running)", "<td class=\"number\">1.48</td>", "<td class=\"number\">800</td>",
        "990 (× 1.10)", "decode, batch 8, context 8,192", "Ann has 2 &lt;apples&gt; &amp; a &quot;pear&quot;.",
        "loo-1 answers, correctly", "With 1 of 4 layers turned into Mamba, loo-1 scores 95.0 ± 1.0 %"}) {
    EXPECT_NE(html.find(part), std::string::npos) << part;
  }
  // Frontier, layouts, two objectives, one ranking.
  EXPECT_EQ(count(html, "<svg"), 5u);
  EXPECT_EQ(count(html, "</svg>"), 5u);
  EXPECT_EQ(count(html, "id='gpPt0'") + count(html, "<?xml"), 0u);
  EXPECT_EQ(count(html, "id='frontier-gpPt0'"), 1u);
  for (const char* name : {"frontier", "layouts", "loss-reverse-kl", "loss-cross-entropy", "importance-loo-1"}) {
    const std::string base = concat("figures/", name);
    EXPECT_TRUE(written(base + ".svg").starts_with("<?xml")) << name;
    EXPECT_NE(written(base + ".svg").find("</svg>"), std::string::npos) << name;
    EXPECT_TRUE(written(base + ".png").starts_with("\x89PNG\r\n\x1a\n")) << name;
    EXPECT_NE(written(base + ".gp").find("plot "), std::string::npos) << name;
    EXPECT_NE(written("report.md").find(base + ".svg"), std::string::npos) << name;
  }
  EXPECT_NE(
      written("report.md").find("| loo-1 | teacher | 1 Mamba of 4 | 40.0 k | 0.0625 reverse KL | 95.0 ± 1.0 % | 600 | 1.48 |"),
      std::string::npos)
      << written("report.md");
}

TEST_F(Page, LoadsNothingAndRunsNothing) {
  write_recipe();
  report({"recipe"});
  const std::string html = written("report.html");
  for (const char* part : {"<script", "<link", "<img", "<iframe", "@import", "src=", "url(http", " href=\"http"}) {
    EXPECT_EQ(count(html, part), 0u) << part;
  }
  EXPECT_NE(html.find("default-src 'none'"), std::string::npos);
  EXPECT_NE(html.find("prefers-color-scheme: dark"), std::string::npos);
}

TEST_F(Page, HostileNamesStayText) {
  const std::string name = R"(<b>\" onload=x 'q' $(touch x) `touch x` | \\)";
  write("hostile/recipe.json", R"({"recipe": "<script>alert(1)</script>.yaml",
    "teacher": {"layout": ["t", "<script>"], "scores": {"<i>&<script>": {"accuracy": 1, "standard_error": 0, "items": 1}}},
    "stages": [{"name": ")" + name +
                                   R"(", "layout": ["t", "m2"], "total_tokens": 5, "loss": 1,
      "scores": {"<script>": {"accuracy": 0.5, "standard_error": 0.1, "items": 4}}}]})");
  write(concat("hostile/", R"(<b>" onload=x 'q' $(touch x) `touch x` | \)", "/ranking.json"),
        R"({"method": "<script>", "layers": [{"layer": 1, "score": 0, "standard_error": 0}]})");
  report({"hostile"});
  const std::string html = written("report.html"), markdown = written("report.md");
  EXPECT_EQ(count(html, "<script") + count(html, "<b>"), 0u);
  EXPECT_EQ(count(markdown, "<script") + count(markdown, "<b>"), 0u);
  EXPECT_NE(html.find("&lt;b&gt;&quot; onload=x &#39;q&#39; $(touch x) `touch x` | \\"), std::string::npos);
  EXPECT_NE(markdown.find("\\`touch x\\` \\| \\\\"), std::string::npos);
  for (const auto& entry : fs::recursive_directory_iterator(folder / "out")) {
    EXPECT_NE(entry.path().filename(), "x");
    if (entry.path().extension() == ".svg") {
      const std::string svg = read_file(entry.path());
      EXPECT_EQ(count(svg, "<script") + count(svg, "<b>"), 0u) << entry.path();
    }
  }
}

TEST_F(Page, LeavesOutWhatIsMissing) {
  write("recipe/recipe.json", R"({"teacher": {}, "stages": [{"name": "a", "from": "teacher", "status": "pending"}]})");
  report({"recipe"});
  const std::string html = written("report.html");
  EXPECT_NE(html.find("a (pending)"), std::string::npos);
  EXPECT_EQ(count(html, "<svg") + count(html, "<pre>"), 0u);
  EXPECT_EQ(count(html, "<th>layers</th>"), 0u);
}

TEST_F(Page, DrawsSingleAndEqualValues) {
  write("recipe/recipe.json",
        R"({"teacher": {"scores": {"x": {"accuracy": 0, "standard_error": 0, "items": 1}}}, "stages": [{"name": "a"}]})");
  write("recipe/a/ranking.json", R"({"method": "mmr", "baseline": {"score": 0},
                                     "layers": [{"layer": 3, "score": 0, "standard_error": 0}]})");
  write("recipe/a/run/metrics.jsonl", R"({"step":1,"tokens":0,"loss":0})"
                                      "\n");
  write("bench.json", R"([{"model": "teacher", "work": "decode", "context": 1, "batch": 1, "tokens_per_second": 7, "lowest": 7,
                           "highest": 7, "ratio": 1}])");
  report({"recipe", "bench.json"});
  EXPECT_EQ(count(written("report.html"), "<svg"), 3u);
}

TEST_F(Page, NamesThePackageWhenThereIsNoGnuplot) {
  write_recipe();
  const char* path = std::getenv("PATH");
  const std::string before = path ? path : "";
  setenv("PATH", (folder / "recipe").c_str(), 1);
  const std::string message = error_of([&] { report({"recipe"}); });
  setenv("PATH", before.c_str(), 1);
  EXPECT_NE(message.find("gnuplot: not found"), std::string::npos) << message;
  EXPECT_NE(message.find("gnuplot-nox"), std::string::npos) << message;
  EXPECT_FALSE(fs::exists(folder / "out"));
}

TEST(Text, WritesNumbersAndCutsNames) {
  EXPECT_EQ(grouped(7), "7.0");
  EXPECT_EQ(grouped(999.6), "1,000");
  EXPECT_EQ(grouped(123456), "123,456");
  EXPECT_EQ(grouped(-1234567), "-1,234,567");
  EXPECT_EQ(shortened("aébc", 3), "aé…");
  EXPECT_EQ(shortened("abc", 3), "abc");
  EXPECT_EQ(slug("MMR 4/ü SFT!"), "mmr-4-sft");
  EXPECT_EQ(slug("ü"), "x");
  EXPECT_EQ(escape_html(std::string("a\x01\0b", 4)),
            "a\xef\xbf\xbd\xef\xbf\xbd"
            "b");
}

TEST(Labels, DoNotMeet) {
  std::vector<Label> labels;
  for (int i = 0; i < 5; ++i) {
    Label label;
    label.x = 300 + 14 * i;
    label.y = 200 + 10 * i;
    label.error = 12;
    label.text = concat("checkpoint-", i);
    labels.push_back(label);
  }
  place_labels(labels, {}, 660, 340);
  for (std::size_t i = 0; i < labels.size(); ++i) {
    EXPECT_GE(labels[i].left, 0);
    for (std::size_t j = 0; j < i; ++j) {
      const bool apart =
          std::abs(labels[i].middle - labels[j].middle) >= 15 || std::abs(labels[i].left - labels[j].left) >= 12 * 7.4;
      EXPECT_TRUE(apart) << i << " and " << j;
    }
  }
}

}  // namespace page_tests

}  // namespace molt::report
