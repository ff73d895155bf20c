#include "report/samples_page.h"

#include <gtest/gtest.h>

#include "support/temporary_folder.h"

namespace molt::report {
namespace samples_page_tests {

TEST(SamplesPage, HoldsEverySampleEscaped) {
  const TemporaryFolder temporary;
  const fs::path folder = temporary.path();
  write_file(folder / "evaluation.json", R"({"task": "math500", "model": "a<b>", "items": 2})");
  write_file(folder / "score.json", R"({"accuracy": 0.75, "standard_error": 0.1, "items": 2,
             "pass_at": {"2": {"accuracy": 1.0, "standard_error": 0.0, "items": 2}},
             "majority_at": {"2": {"accuracy": 0.5, "standard_error": 0.2, "items": 2}}})");
  write_file(
      folder / "samples.jsonl",
      R"({"id": "q-0", "sample": 1, "prompt": "P", "expected": "2", "completion": "second", "extracted": "2", "correct": true}
{"id": "q-1", "sample": 0, "prompt": "<script>alert(1)</script>", "expected": "5", "completion": "a & b", "extracted": "", "correct": false}
{"id": "q-0", "sample": 0, "prompt": "P", "expected": "2", "completion": "first", "extracted": "3", "correct": false}
)");
  const std::string page = read_file(write_samples_page(folder));
  EXPECT_EQ(page.find("<script"), std::string::npos);
  EXPECT_NE(page.find("&lt;script&gt;alert(1)"), std::string::npos);
  EXPECT_NE(page.find("a &amp; b"), std::string::npos);
  EXPECT_NE(page.find("no answer found"), std::string::npos);
  EXPECT_NE(page.find("1 of 2 right"), std::string::npos);
  EXPECT_LT(page.find("first"), page.find("second"));
  EXPECT_NE(page.find("75.0 % ± 10.0, pass@2 100.0 % ± 0.0, maj@2 50.0 % ± 20.0"), std::string::npos);
}

}  // namespace samples_page_tests
}  // namespace molt::report
