#include "evaluate/answer/answer.h"

#include <gtest/gtest.h>

#include <chrono>
#include <utility>
#include <vector>

#include "base/files.h"

namespace molt {
namespace answer_tests {

std::vector<std::pair<std::string, std::string>> pairs(const char* name) {
  std::vector<std::pair<std::string, std::string>> found;
  LineReader reader(fs::path(MOLT_SOURCE) / "tests/evaluate/answers" / name);
  for (std::string_view line; reader.next(line);) {
    const auto tab = line.find('\t');
    EXPECT_NE(tab, std::string_view::npos) << reader.place();
    found.emplace_back(line.substr(0, tab), line.substr(tab + 1));
  }
  return found;
}

TEST(Answers, TheListOfPairsIsJudgedAsWritten) {
  const auto same = pairs("equal.tsv"), different = pairs("unequal.tsv");
  EXPECT_GE(same.size() + different.size(), 400u);
  for (const auto& [a, b] : same) {
    EXPECT_TRUE(answers_equal(a, b)) << a << "   " << b;
    EXPECT_TRUE(answers_equal(b, a)) << b << "   " << a;
    EXPECT_TRUE(answers_equal(a, a)) << a;
  }
  for (const auto& [a, b] : different) {
    EXPECT_FALSE(answers_equal(a, b)) << a << "   " << b;
    EXPECT_FALSE(answers_equal(b, a)) << b << "   " << a;
  }
}

TEST(Answers, FinalAnswersAreFound) {
  const std::vector<std::pair<const char*, const char*>> cases = {
      {"so \\boxed{5}.", "5"},
      {"first \\boxed{1}, then $\\boxed{\\frac{1}{2}}$", "\\frac{1}{2}"},
      {"\\boxed{\\{1, \\sqrt{2}\\}}", "\\{1, \\sqrt{2}\\}"},
      {"\\fbox{7}", "7"},
      {"\\boxed 5", "5"},
      {"\\boxed{\\text{a {nested} box}}", "\\text{a {nested} box}"},
      {"\\boxed{3} and \\boxed{unclosed", "3"},
      {"6 * 3 = 18\n#### 18\n", "18"},
      {"The answer is $\\frac{3}{4}$.", "$\\frac{3}{4}$"},
      {"The final answer is: 42. I hope it is correct.", "42"},
      {"**Answer:** 12", "12"},
      {"the answer is 3.5", "3.5"},
      {"it must be 1,234 apples", "1234"},
      {"nothing", ""},
      {"", ""}};
  for (const auto& [text, expected] : cases) EXPECT_EQ(extract_answer(text), expected) << text;
}

TEST(Answers, TheLastNumberIsFound) {
  const std::vector<std::pair<const char*, const char*>> cases = {{"so 12 and 1,234.50 .", "1234.5"},
                                                                  {"no number", ""},
                                                                  {"-7", "-7"},
                                                                  {"9-7", "7"},
                                                                  {"$0", "0"},
                                                                  {"007", "7"},
                                                                  {"0.50", "0.5"},
                                                                  {"#### 18", "18"},
                                                                  {"a 3.", "3"},
                                                                  {"-0.0", "0"},
                                                                  {"1,000", "1000"}};
  for (const auto& [text, number] : cases) EXPECT_EQ(last_number(text), number) << text;
}

TEST(Answers, ThinkingIsNoAnswer) {
  EXPECT_EQ(strip_thinking("<think>\\boxed{1}</think>\\boxed{2}"), "\\boxed{2}");
  EXPECT_EQ(strip_thinking("\\boxed{1}</think> 2", true), " 2");
  EXPECT_EQ(strip_thinking("<think>\\boxed{1}"), "");
  EXPECT_EQ(strip_thinking("\\boxed{1}", true), "");
  EXPECT_EQ(strip_thinking("\\boxed{1}"), "\\boxed{1}");
}

TEST(Answers, ChoicesAreFound) {
  const std::vector<std::pair<const char*, const char*>> cases = {{"B", "B"},
                                                                  {"(C)", "C"},
                                                                  {"The answer is (D).", "D"},
                                                                  {"Answer: A", "A"},
                                                                  {"**Answer: B**", "B"},
                                                                  {"\\boxed{C}", "C"},
                                                                  {"\\boxed{\\text{(B)}}", "B"},
                                                                  {"\\boxed{\\text{A. water}}", "A"},
                                                                  {"(A) is wrong, so it is (B), surely", "B"},
                                                                  {"D. because", "D"},
                                                                  {"A cat sat there", ""},
                                                                  {"", ""}};
  for (const auto& [text, expected] : cases) EXPECT_EQ(extract_choice(text), expected) << text;
}

TEST(Answers, HostileTextEndsSoon) {
  const auto repeated = [](const std::string& part, std::size_t times) {
    std::string text;
    for (std::size_t i = 0; i < times; ++i) text += part;
    return text;
  };
  std::vector<std::string> hostile;
  for (const char* part :
       {"(",      "{",         "[",     "\\{", "\\frac{", "\\frac1", "\\sqrt{",          "-", "2^", "|",     "x", "9",
        "\\pm 1", "1,",        "\\{1,", "(1,", "!",       "\\sin ",  "\\begin{pmatrix}", "=", "<",  "\\cup", "_", "\\text{",
        "9!",     "1\\frac12", "9^9^",  "\\"})
    for (const std::size_t times : {40, 150, 900}) hostile.push_back(repeated(part, times));
  hostile.push_back(repeated("x+y-", 240) + "1");
  hostile.push_back(repeated("(", 30) + "x" + repeated("!)", 30));
  const auto begin = std::chrono::steady_clock::now();
  for (const std::string& text : hostile) {
    EXPECT_FALSE(answers_equal(text, "17/19 zebras"));
    EXPECT_FALSE(answers_equal(text + "a", text + "b")) << text.substr(0, 20) << " " << text.size();
  }
  const std::string boxes = repeated("\\boxed{", 100'000);
  EXPECT_EQ(boxed_answer(boxes), "");
  EXPECT_LT(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(), 20);
}

}  // namespace answer_tests
}  // namespace molt
