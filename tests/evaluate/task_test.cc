#include "evaluate/task.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/files.h"
#include "support/error_of.h"
#include "support/temporary_folder.h"

namespace molt {
namespace task_tests {

class TaskTest : public testing::Test {
 protected:
  void SetUp() override { config_.data = folder_ / "items.jsonl"; }

  std::unique_ptr<Task> task(const std::string& name, const std::string& lines) {
    write_file(config_.data, lines);
    config_.name = name;
    return make_task(config_);
  }
  std::string error(const std::string& name, const std::string& lines) {
    return error_of([&] { task(name, lines); });
  }

  TemporaryFolder temporary_;
  const fs::path folder_ = temporary_.path();
  TaskConfig config_;
};

TEST_F(TaskTest, Gsm8kTakesTheFinalNumber) {
  const auto gsm8k = task("gsm8k", "{\"question\": \"How many?\", \"answer\": \"3 * 6 = 18\\n#### 18\"}\n");
  ASSERT_EQ(gsm8k->items().size(), 1u);
  const TaskItem& item = gsm8k->items()[0];
  EXPECT_EQ(item.prompt, "Question: How many?\nAnswer:");
  EXPECT_TRUE(gsm8k->correct(item, " 3 * 6 = 18\n#### 18\nand 5 more"));
  EXPECT_TRUE(gsm8k->correct(item, "it is $18.00"));
  EXPECT_FALSE(gsm8k->correct(item, "18 or 19"));
  EXPECT_FALSE(gsm8k->correct(item, ""));
}

TEST_F(TaskTest, MmluComparesLetters) {
  const auto mmlu =
      task("mmlu", "{\"question\": \"Which?\", \"choices\": [\"x\", \"y\", \"z\"], \"answer\": 1, \"type\": \"t\"}\n");
  const TaskItem& item = mmlu->items()[0];
  EXPECT_EQ(item.prompt, "Which?\nA. x\nB. y\nC. z\nAnswer:");
  EXPECT_EQ(item.choices, (std::vector<std::string>{" A", " B", " C"}));
  EXPECT_EQ(item.expected, "B");
}

TEST_F(TaskTest, ExamplesStandBeforeEachQuestion) {
  write_file(folder_ / "shots.jsonl",
             "{\"question\": \"Q1\", \"answer\": \"A1 #### 1\"}\n{\"question\": \"Q2\", \"answer\": \"A2 #### 2\"}\n");
  config_.shots = 1;
  config_.shots_data = folder_ / "shots.jsonl";
  const auto gsm8k = task("gsm8k", "{\"question\": \"Q\", \"answer\": \"#### 3\"}\n");
  EXPECT_EQ(gsm8k->items()[0].prompt, "Question: Q1\nAnswer: A1 #### 1\n\nQuestion: Q\nAnswer:");
}

TEST_F(TaskTest, FreshProblemsAreOfTheTestSplitAndGrouped) {
  TaskConfig fresh;
  fresh.limit = 20;
  const auto synthetic = make_task(fresh);
  ASSERT_EQ(synthetic->items().size(), 20u);
  for (const TaskItem& item : synthetic->items()) {
    EXPECT_EQ(item.id.substr(0, 5), "test-");
    EXPECT_TRUE(synthetic->correct(item, " x = 1 . answer : " + item.expected));
    EXPECT_FALSE(synthetic->correct(item, " answer : " + item.expected + "1"));
    EXPECT_GE(item.groups.at("steps"), 2);
    const auto distance = item.groups.at("distance");
    EXPECT_EQ(distance & (distance - 1), 0) << distance;
  }
}

TEST_F(TaskTest, NamesFileLineAndField) {
  EXPECT_NE(error("gsm8k", "{\"question\": \"Q\"}\n").find("items.jsonl:1: answer"), std::string::npos);
  EXPECT_NE(error("gsm8k", "\n{\"question\": \"Q\", \"answer\": \"3\"}\n").find("items.jsonl:2: answer: found no \"####\""),
            std::string::npos);
  EXPECT_NE(error("mmlu", "{\"question\": \"Q\", \"choices\": [\"x\", \"y\"], \"answer\": 2}\n").find("answer: found 2"),
            std::string::npos);
  EXPECT_NE(error("synthetic", "{\"id\": \"1\"}\n").find("items.jsonl:1: "), std::string::npos);
  EXPECT_NE(error("gsm8k", "[]\n").find("no object"), std::string::npos);
  EXPECT_NE(error("gsm8k", "").find("no items"), std::string::npos);
}

}  // namespace task_tests
}  // namespace molt
