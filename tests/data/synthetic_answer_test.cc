#include <gtest/gtest.h>

#include "data/synthetic/problems.h"

namespace molt {

TEST(Synthetic, FinalAnswerIsFoundAmidText) {
  EXPECT_EQ(final_answer(" hal = 2 . answer : 45"), "45");
  EXPECT_EQ(final_answer("answer : 45 . hal = 3 . answer : 7"), "45");
  EXPECT_EQ(final_answer("Answer: 4 5 ."), "45");
  EXPECT_EQ(final_answer("answer : 45 6 apples"), "45");
  EXPECT_EQ(final_answer("answer : 4 56"), "4");
  EXPECT_EQ(final_answer("the answer is near . answer :\n 007 . 5"), "7");
  EXPECT_EQ(final_answer("answer : answer : 12"), "12");
  EXPECT_EQ(final_answer("She has 3*4=<<3*4=12>>12 eggs.\n#### 1,234"), "1234");
  EXPECT_EQ(final_answer("#### $45.00."), "45");
  EXPECT_EQ(final_answer("#### 45.50"), "45.5");
  EXPECT_EQ(final_answer("####-3"), "-3");
  EXPECT_EQ(final_answer("answer : 0 0"), "0");
  EXPECT_EQ(final_answer("answer : -0"), "0");
  EXPECT_EQ(final_answer("12"), std::nullopt);
  EXPECT_EQ(final_answer("answer 12"), std::nullopt);
  EXPECT_EQ(final_answer("#### many"), std::nullopt);
  EXPECT_EQ(final_answer("answer :"), std::nullopt);
  EXPECT_EQ(final_answer(""), std::nullopt);
  EXPECT_TRUE(check_answer("answer : 4 5", "45"));
  EXPECT_TRUE(check_answer("#### 1234", "1,234"));
  EXPECT_FALSE(check_answer("answer : 4", "45"));
  EXPECT_FALSE(check_answer("45", "45"));
}

}  // namespace molt
