#include "distill/model_card.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace molt::model_card_test {

const OrderedJson index = OrderedJson::parse(R"({"recipe": "r.yaml",
  "teacher": {"path": "models/teacher", "layout": ["t", "t", "t"], "scores": {"gsm8k": {"accuracy": 0.9, "standard_error": 0.01}}},
  "stages": [
    {"name": "H-1", "from": "teacher", "method": "loo", "converted": [2], "layout": ["t", "t", "m2"], "tokens": 1500000, "loss": 0.25},
    {"name": "H-1-SFT", "from": "H-1", "layout": ["t", "t", "m2"], "tokens": 20000,
     "scores": {"gsm8k": {"accuracy": 0.88, "standard_error": 0.02}, "new": {"accuracy": 0.5, "standard_error": 0.1}}}]})");

TEST(ModelCard, SaysHowAStageWasMadeAndWhatIsKnownOfIt) {
  const Json bench = Json::parse(R"([
    {"model": "models/teacher", "work": "decode", "batch": 8, "context": 8192, "tokens_per_second": 206.4},
    {"model": "runs/r/H-1/export", "work": "decode", "batch": 8, "context": 8192, "tokens_per_second": 250},
    {"model": "runs/r/H-1-SFT/export", "work": "decode", "batch": 8, "context": 8192, "tokens_per_second": 1314.2},
    {"model": "models/teacher", "work": "prefill", "batch": 1, "context": 8192, "tokens_per_second": 2292}])");
  const ModelCard card = stage_card(index, "H-1-SFT", bench);
  ASSERT_EQ(card.history.size(), 2u);
  EXPECT_EQ(
      card.history[0],
      "Stage H-1, from teacher: attention layers 2 became Mamba layers (chosen by loo), then 1.50 M tokens of training to a loss "
      "of 0.2500.");
  ASSERT_EQ(card.throughput.size(), 1u);
  const std::string text = model_card_text(card);
  for (const char* expected : {"# H-1-SFT\n", "3 layers, 1 of them a Mamba layer that took the place", "`models/teacher`",
                               "\naaM\n", "| gsm8k | 0.900 ± 0.010 | 0.880 ± 0.020 |", "| new |  | 0.500 ± 0.100 |",
                               "| decode, batch 8, context 8,192 | 206 | 1,314 |", "trust_remote_code=True"}) {
    EXPECT_NE(text.find(expected), std::string::npos) << expected << "\n" << text;
  }
}

TEST(ModelCard, TheScoresOfAStageAreThoseOfTheIndex) {
  const OrderedJson scores = stage_scores(index, "H-1-SFT");
  EXPECT_EQ(scores["scores"], index["stages"][1]["scores"]);
  EXPECT_EQ(scores["teacher_scores"], index["teacher"]["scores"]);
  EXPECT_EQ(scores["teacher"], "models/teacher");
  EXPECT_FALSE(scores.contains("loss"));
  EXPECT_EQ(stage_scores(index, "H-1")["loss"], 0.25);
}

TEST(ModelCard, LeavesOutWhatIsNotKnown) {
  const std::string text = model_card_text(stage_card(index, "H-1", Json()));
  EXPECT_EQ(text.find("## Scores"), std::string::npos);
  EXPECT_EQ(text.find("## Throughput"), std::string::npos);
}

}  // namespace molt::model_card_test
