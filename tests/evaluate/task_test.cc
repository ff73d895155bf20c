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
    EXPECT_GE(std::get<std::int64_t>(item.groups.at("steps")), 2);
    const auto distance = std::get<std::int64_t>(item.groups.at("distance"));
    EXPECT_EQ(distance & (distance - 1), 0) << distance;
  }
}

TEST_F(TaskTest, CompetitionAnswersAreComparedAsMathematics) {
  const auto math = task("math500", R"({"problem": "P", "answer": "\\frac{1}{2}", "subject": "Algebra", "level": 3})"
                                    "\n"
                                    R"({"problem": "P", "solution": "so \\boxed{\\sqrt{2}}", "level": "Level 5"})"
                                    "\n");
  const auto& items = math->items();
  ASSERT_EQ(items.size(), 2u);
  EXPECT_EQ(items[0].prompt, "Problem: P\nPlease reason step by step, and put your final answer within \\boxed{}.\nSolution:");
  EXPECT_EQ(std::get<std::string>(items[0].groups.at("subject")), "Algebra");
  EXPECT_EQ(std::get<std::int64_t>(items[1].groups.at("level")), 5);
  EXPECT_TRUE(math->correct(items[0], "hence \\boxed{0.5}"));
  EXPECT_FALSE(math->correct(items[0], "hence \\boxed{2}"));
  EXPECT_TRUE(math->correct(items[1], "the answer is $2^{1/2}$."));
  EXPECT_FALSE(math->correct(items[1], ""));
  const auto amc = task("amc23", "{\"problem\": \"P\", \"answer\": 27.0}\n");
  EXPECT_TRUE(amc->correct(amc->items()[0], "\\boxed{27}"));
  const auto aime = task("aime24", "{\"problem\": \"P\", \"answer\": \"025\"}\n");
  EXPECT_TRUE(aime->correct(aime->items()[0], "\\boxed{25}"));
}

TEST_F(TaskTest, TheChatFormHasTurns) {
  write_file(folder_ / "shots.jsonl", "{\"problem\": \"Q1\", \"solution\": \"A1\"}\n");
  config_.form = "chat";
  config_.system = "S";
  config_.instruction = "I";
  config_.shots = 1;
  config_.shots_data = folder_ / "shots.jsonl";
  const auto math = task("math500", "{\"problem\": \"Q\", \"answer\": \"1\"}\n");
  std::vector<std::string> turns;
  for (const ChatMessage& message : math->items()[0].messages) turns.push_back(message.role + ": " + message.content);
  EXPECT_EQ(turns, (std::vector<std::string>{"system: S", "user: Q1\nI", "assistant: A1", "user: Q\nI"}));
}

TEST_F(TaskTest, GpqaIsReadFromCsvAndShuffled) {
  config_.data = folder_ / "gpqa.csv";
  std::string csv =
      "\xEF\xBB\xBFQuestion,Correct Answer,Incorrect Answer 1,Incorrect Answer 2,Incorrect Answer 3,High-level domain\r\n";
  for (int i = 0; i < 40; ++i) csv += "\"What, \"\"now\"\"\n?\",right,w1,w2,w3,Physics\r\n";
  const auto gpqa = task("gpqa", csv);
  ASSERT_EQ(gpqa->items().size(), 40u);
  EXPECT_EQ(gpqa->items()[0].prompt.substr(0, 15), "What, \"now\"\n?\nA");
  std::map<std::string, int> places;
  for (const TaskItem& item : gpqa->items()) {
    ++places[item.expected];
    EXPECT_NE(item.prompt.find(item.expected + ". right"), std::string::npos);
  }
  EXPECT_EQ(places.size(), 4u);
  config_.seed = 1;
  const auto other = task("gpqa", csv);
  int moved = 0;
  for (std::size_t i = 0; i < 40; ++i) moved += other->items()[i].expected != gpqa->items()[i].expected;
  EXPECT_GT(moved, 10);
  config_.form = "chat";
  const auto asked = task("gpqa", csv);
  EXPECT_TRUE(asked->items()[0].choices.empty());
  EXPECT_TRUE(asked->correct(asked->items()[0], "so \\boxed{" + asked->items()[0].expected + "}"));
  EXPECT_NE(error("gpqa", "Question,Correct Answer\nQ\n").find("gpqa.csv:2: found 1 fields, expected 2"), std::string::npos);
  EXPECT_NE(error("gpqa", "Question\n\"Q\n").find("quote"), std::string::npos);
}

TEST_F(TaskTest, PromptsOfAFileAreTakenAsTheyAre) {
  config_.system = "S";
  const auto answers = task("answers",
                            "{\"prompt\": \"2 + 2 =\", \"answer\": 4}\n"
                            "{\"messages\": [{\"role\": \"user\", \"content\": \"2 + 2\"}], \"answer\": \"4\"}\n");
  EXPECT_EQ(answers->items()[0].prompt, "2 + 2 =");
  ASSERT_EQ(answers->items()[1].messages.size(), 2u);
  EXPECT_EQ(answers->items()[1].messages[0].content, "S");
  EXPECT_TRUE(answers->correct(answers->items()[0], " 4"));
  EXPECT_FALSE(answers->correct(answers->items()[0], " 5"));
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
