#include "infer/stop_strings.h"

#include <gtest/gtest.h>

namespace molt {
namespace stop_strings_test {

// What passes when the text comes in pieces of `size` bytes; pieces must join to the text before the first stop string.
std::string passed(const std::string& text, std::size_t size, const std::vector<std::string>& stops, bool* met = nullptr) {
  StopStrings filter(stops);
  std::string out;
  for (std::size_t i = 0; i < text.size(); i += size) out += filter.push(text.substr(i, size));
  if (met) *met = filter.met();
  return filter.met() ? out : out + filter.finish();
}

TEST(StopStrings, CutBeforeTheFirstWhateverThePieces) {
  for (std::size_t size = 1; size < 12; ++size) {
    bool met = false;
    EXPECT_EQ(passed("one two three", size, {"three", "two"}, &met), "one ");
    EXPECT_TRUE(met);
    EXPECT_EQ(passed("aaab", size, {"aab"}), "a");
    EXPECT_EQ(passed("a\n\nb", size, {"\n\n"}), "a");
    EXPECT_EQ(passed("nothing here", size, {"hero", "x"}, &met), "nothing here");
    EXPECT_FALSE(met);
    EXPECT_EQ(passed("plain", size, {}), "plain");
  }
}

TEST(StopStrings, HoldsBackNoMoreThanCouldBeAStop) {
  StopStrings filter({"END", "\n\n"});
  EXPECT_EQ(filter.push("some E"), "some ");
  EXPECT_EQ(filter.push("N"), "");
  EXPECT_EQ(filter.push("x\n"), "ENx");
  EXPECT_EQ(filter.finish(), "\n");
}

TEST(StopStrings, PassesNothingAfterAStop) {
  StopStrings filter({"."});
  EXPECT_EQ(filter.push("a.b"), "a");
  EXPECT_EQ(filter.push("c"), "");
  EXPECT_EQ(filter.finish(), "");
}

}  // namespace stop_strings_test
}  // namespace molt
