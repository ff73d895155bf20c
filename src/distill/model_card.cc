#include "distill/model_card.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/counted.h"
#include "base/error.h"
#include "base/files.h"
#include "base/progress.h"
#include "base/text_table.h"
#include "distill/layout_strip.h"
#include "evaluate/score.h"

namespace molt {
namespace model_cards {

const OrderedJson* find_stage(const OrderedJson& index, const std::string& name) {
  for (const OrderedJson& entry : index["stages"]) {
    if (entry.value("name", "") == name) return &entry;
  }
  return nullptr;
}

std::string sentence(const OrderedJson& stage) {
  std::string text = concat("Stage ", stage.value("name", ""), ", from ", stage.value("from", ""), ": ");
  const auto listed = [&](const char* key) {
    std::string layers;
    for (const auto& layer : stage[key]) layers += concat(layers.empty() ? "" : ", ", layer.get<std::int64_t>());
    return layers;
  };
  if (stage.contains("restored")) text += concat("layers ", listed("restored"), " became the teacher's attention again, then ");
  if (stage.contains("converted")) {
    text += concat("attention layers ", listed("converted"), " became Mamba layers (chosen by ", stage.value("method", ""),
                   "), then ");
  }
  text += concat(human_count(stage.value("tokens", 0.0)), " tokens of training");
  if (stage.contains("adapted")) text += " by low-rank adapters";
  if (stage.contains("loss")) text += concat(" to a loss of ", fixed_text(stage["loss"].get<double>(), 4));
  return text + ".";
}

std::string score_cell(const OrderedJson& entry, const std::string& task) {
  if (!entry.contains("scores") || !entry["scores"].contains(task)) return "";
  return score_text(entry["scores"][task], " ± ");
}

// "…/H-30/export" is stage H-30's; what is no stage's is taken for the teacher's.
std::string stage_of(const Json& row, const OrderedJson& index) {
  const fs::path path = row.value("model", "");
  const std::string name = (path.filename() == "export" ? path.parent_path() : path).filename().string();
  return find_stage(index, name) ? name : "";
}

std::vector<ModelCard::Row> throughput_rows(const Json& bench, const OrderedJson& index, const std::string& stage) {
  std::vector<ModelCard::Row> rows;
  if (!bench.is_array()) return rows;
  for (const Json& entry : bench) {
    const std::string owner = stage_of(entry, index);
    if (!owner.empty() && owner != stage) continue;
    const std::string batch = entry.value("work", "") == "decode" ? concat(", batch ", entry.value("batch", 0)) : "";
    const std::string what = concat(entry.value("work", ""), batch, ", context ", grouped_text(entry.value("context", 0.0)));
    auto row = std::find_if(rows.begin(), rows.end(), [&](const ModelCard::Row& known) { return known.what == what; });
    if (row == rows.end()) row = rows.insert(rows.end(), {what, "", ""});
    (owner.empty() ? row->teacher : row->model) = grouped_text(entry.value("tokens_per_second", 0.0));
  }
  std::erase_if(rows, [](const ModelCard::Row& row) { return row.model.empty(); });
  return rows;
}

std::string table(const std::string& title, const std::string& unit, const std::vector<ModelCard::Row>& rows) {
  if (rows.empty()) return "";
  std::string text = concat("\n## ", title, "\n\n| ", unit, " | teacher | this model |\n|---|---:|---:|\n");
  for (const ModelCard::Row& row : rows) text += concat("| ", row.what, " | ", row.teacher, " | ", row.model, " |\n");
  return text;
}

}  // namespace model_cards

ModelCard stage_card(const OrderedJson& index, const std::string& name, const Json& bench) {
  using namespace model_cards;
  const OrderedJson* stage = find_stage(index, name);
  MOLT_CHECK(stage, "no stage ", name);
  ModelCard card{.name = name, .teacher = index["teacher"].value("path", "")};
  card.layout = stage->value("layout", std::vector<std::string>());
  for (const OrderedJson* at = stage; at; at = find_stage(index, at->value("from", ""))) {
    card.history.insert(card.history.begin(), sentence(*at));
  }
  if (stage->contains("scores")) {
    for (const auto& [task, score] : (*stage)["scores"].items()) {
      card.scores.push_back({task, score_cell(index["teacher"], task), score_cell(*stage, task)});
    }
  }
  card.throughput = throughput_rows(bench, index, name);
  return card;
}

OrderedJson stage_scores(const OrderedJson& index, const std::string& name) {
  const OrderedJson* stage = model_cards::find_stage(index, name);
  MOLT_CHECK(stage, "no stage ", name);
  OrderedJson result = {{"stage", name}, {"teacher", index["teacher"].value("path", "")}};
  for (const char* key : {"total_tokens", "loss", "evaluation", "scores"}) {
    if (stage->contains(key)) result[key] = (*stage)[key];
  }
  if (index["teacher"].contains("scores")) result["teacher_scores"] = index["teacher"]["scores"];
  return result;
}

std::string model_card_text(const ModelCard& card) {
  const auto mamba = std::count(card.layout.begin(), card.layout.end(), "m2");
  std::string text =
      concat("---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags: [mamba, hybrid, distillation]\n---\n\n# ",
             card.name, "\n\nA language model of ", counted(std::ssize(card.layout), "layer"), ", ", mamba,
             mamba == 1 ? " of them a Mamba layer" : " of them Mamba layers",
             " that took the place of attention, made with Molt from the teacher `", card.teacher, "`.\n\n```\n",
             layout_strip(card.layout), "\n", layout_legend, "\n```\n");
  if (!card.history.empty()) text += "\n## How it was made\n\n";
  for (const std::string& line : card.history) text += concat("1. ", line, "\n");
  text += model_cards::table("Scores", "task", card.scores);
  text += model_cards::table("Throughput", "tokens/s", card.throughput);
  return text + R"(
## Use

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("path/to/this/folder", trust_remote_code=True, dtype="auto")
tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
```

The modelling files in this folder need `torch` and `transformers` 5, from 5.14 on, and run on any device. Their scan is made of torch's
own calls: `molt generate` is faster.
)";
}

}  // namespace molt
