#include "report/figures.h"

#include <gtest/gtest.h>

namespace molt::report {
namespace {

Curve curve(const std::string& name, const std::vector<std::string>& held_out) {
  Curve result{name, "cross_entropy", {{100, 3}, {200, 2}}, {}};
  for (const std::string& set : held_out) result.held_out[set] = {{100, 3.1}, {200, 2.2}};
  return result;
}

std::string script_of(const Collection& collection) {
  const Figures figures = draw_figures(collection);
  EXPECT_EQ(figures.losses.size(), 1u);
  return figures.losses.at(0).script;
}

TEST(LossFigure, NamesHeldOutSetsWhereThereAreSeveral) {
  Collection collection;
  collection.curves = {curve("a", {"stories"}), curve("b", {"problems", "stories"})};
  const std::string script = script_of(collection);
  EXPECT_NE(script.find("'held out: problems'"), std::string::npos) << script;
  EXPECT_NE(script.find("'held out: stories'"), std::string::npos);
  EXPECT_NE(script.find("'tokens'"), std::string::npos) << "there is no teacher";
  collection.curves = {curve("a", {"stories"})};
  EXPECT_NE(script_of(collection).find("'held out'"), std::string::npos);
}

TEST(LossFigure, CountsTokensSinceTheTeacherInARecipe) {
  Collection collection;
  collection.checkpoints.resize(2);
  collection.checkpoints[1].from = "teacher";
  collection.curves = {curve("a", {})};
  EXPECT_NE(script_of(collection).find("'tokens since the teacher'"), std::string::npos);
}

}  // namespace
}  // namespace molt::report
