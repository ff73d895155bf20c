// What an export says of itself: scores.json, and README.md in the form that Hugging Face shows: layout, how it was made, scores,
// throughput, how to load it.
#pragma once
#include <string>
#include <vector>

#include "base/json.h"

namespace molt {

struct ModelCard {
  std::string name, teacher = {};         // the teacher's folder
  std::vector<std::string> layout = {};   // letters of hybrid_block_layout
  std::vector<std::string> history = {};  // a sentence a step, the first one first
  struct Row {
    std::string what, teacher, model;  // of what: "gsm8k", "decode, batch 8, context 8,192"; "" where it is not known
  };
  std::vector<Row> scores = {}, throughput = {};
};

// What is known of a stage: `index` is a recipe.json, `bench` the output of `molt bench --json`, or null.
ModelCard stage_card(const OrderedJson& index, const std::string& stage, const Json& bench);

// scores.json of a stage's export: {"stage", "teacher" (its folder), "total_tokens", "loss", "evaluation", "scores",
// "teacher_scores"}, the index's figures; what is not known is left out.
OrderedJson stage_scores(const OrderedJson& index, const std::string& stage);

std::string model_card_text(const ModelCard& card);

}  // namespace molt
