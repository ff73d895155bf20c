#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "base/counted.h"
#include "base/error.h"
#include "distill/recipe.h"
#include "formats/config_json.h"
#include "formats/hugging_face.h"
#include "model/config.h"

namespace molt {

void ChooseConfig::visit(ConfigVisitor& v) {
  v.choice("method", method, rank_methods(), "As `molt rank`; list: from an order that is known");
  if (method == "list") {
    v.field("layers", layers, "Least important first; the first that are still attention are taken");
    return;
  }
  v.field("candidates", candidates,
          "Rank only this many: the least important of the last ranking on the way to this stage; 0: all that are left");
  rank.method = method;
  rank.visit_settings(v);
}

void StageLoraConfig::visit(ConfigVisitor& v) {
  LoraConfig::visit(v);
  v.choice("export", exported, {"merged", "adapters"},
           "merged: the stage's export has whole weights; adapters: those alone, as peft reads them");
}

namespace recipe_config {

void check_name(const std::string& name, const std::string& place) {
  const auto fits = [](unsigned char c) { return std::isalnum(c) || c == '-' || c == '_' || c == '.'; };
  require(!name.empty(), place, ": name: missing, expected the stage's name, which is also its folder's");
  require(std::all_of(name.begin(), name.end(), fits) && name[0] != '.' && name != "teacher", place, ": name: found \"", name,
          "\", expected letters, digits, - and _, and not \"teacher\"");
}

void check_stages(const RecipeConfig& recipe, const std::string& place) {
  std::map<std::string, std::int64_t> mamba_layers = {{"teacher", 0}};
  std::vector<std::string> names = {"teacher"};
  for (std::size_t i = 0; i < recipe.stages.size(); ++i) {
    const StageConfig& stage = recipe.stages[i];
    const std::string at = concat(place, ": stages[", i, "]");
    check_name(stage.name, at);
    require(!mamba_layers.contains(stage.name), at, ": name: \"", stage.name, "\" is another stage's already");
    const auto parent = mamba_layers.find(stage.from);
    if (parent == mamba_layers.end()) {
      const std::string near = nearest(stage.from, names);
      fail(at, ": from: found \"", stage.from, "\", expected teacher or an earlier stage",
           near.empty() ? "" : concat(" (did you mean \"", near, "\"?)"));
    }
    const std::int64_t restored = std::ssize(stage.restore);
    require(restored <= parent->second, at, ": restore: found ", counted(restored, "layer"), ", expected at most the ",
            counted(parent->second, "Mamba layer"), " of ", stage.from, ", from which it starts");
    require(stage.mamba_layers >= parent->second - restored, at, ": mamba_layers: found ", stage.mamba_layers,
            ", expected at least the ", parent->second, " of ", stage.from, ", from which it starts",
            restored > 0 ? concat(", less the ", restored, " restored") : "");
    const std::int64_t fresh = stage.mamba_layers - parent->second + restored, candidates = stage.choose.candidates;
    require(candidates == 0 || candidates >= fresh, at, ": choose.candidates: found ", candidates, ", expected at least the ",
            counted(fresh, "layer that is converted", "layers that are converted"));
    const StageConfig* before = recipe.find(stage.from);
    require(!stage.lora || (fresh == 0 && restored == 0), at, ": lora: found a stage that changes ",
            counted(fresh + restored, "layer"), ", expected one that changes none, such as one that comes from it");
    require(!stage.lora || !before || !before->lora || before->lora->exported == "merged", at, ": lora: found adapters on ",
            stage.from, ", whose lora.export is adapters; expected merged there");
    const std::string& teacher = stage.head.distillation_model;
    require(teacher.empty() || teacher == "teacher", at, ": head.distillation_model: found \"", teacher,
            "\", expected teacher, or nothing for next-token loss");
    mamba_layers[stage.name] = stage.mamba_layers;
    names.push_back(stage.name);
  }
}

}  // namespace recipe_config

void StageConfig::visit(ConfigVisitor& v) {
  v.field("name", name, "Of the stage and its folder");
  v.field("from", from, "The stage that it starts from, or teacher");
  v.field("mamba_layers", mamba_layers, "How many layers are Mamba after it; as many as before: nothing is converted");
  v.field("restore", restore, "Mamba layers that get the teacher's attention back, before others are converted");
  v.field("convert", convert, "What the converted layers become");
  if (v.reading()) choose.rank.mixer = convert;
  v.field("choose", choose, "Which layers are converted");
  v.field("head", head, "The loss: with a distillation_model (teacher) the divergence from it, else next-token loss (SFT)");
  v.field("lora", lora, "Train low-rank adapters of the projections, and nothing else; for stages that change no layer");
  v.field("data", data, "Instead of the recipe's");
  v.field("training", training, "The loop; what is left unsaid is the recipe's");
  v.optional_section(
      "match", "A training before it: each new mixer's output is drawn to the teacher's; what is left unsaid is as in training",
      match.has_value(),
      [&](ConfigVisitor& m) {
        if (!match) match = training;
        match->visit(m);
      },
      [&] { match.reset(); });
}

void TeacherConfig::visit(ConfigVisitor& v) {
  v.field("pretrained", pretrained, "Where the teacher is");
  v.field("logits", logits, "Folders of molt logits --top-k of it, from which stages learn its predictions in its place");
  v.choice("dtype", dtype, {"auto", "fp8"},
           "auto: the run's; fp8: products of its projections in eight bits where its predictions are learnt from");
  v.field("architecture", architecture, "What it is made of, for --dry-run where the folder is not there");
  if (v.reading())
    require(logits.empty() || dtype == "auto", v.place(), ": dtype: found fp8 beside logits, expected auto: no model predicts");
}

void RecipeConfig::visit(ConfigVisitor& v) {
  v.field("teacher", teacher, "The model that is converted and distilled from");
  v.field("tokenizer", tokenizer, "Folder with tokenizer.json; empty: the teacher's");
  v.field("data", data, "What every stage learns from unless it says otherwise");
  v.field("held_out", held_out, "Data by name whose loss is measured at each evaluation");
  v.field("evaluate", evaluate, "Tasks by name on which the teacher and each stage's result are scored");
  v.field("training", training, "The loop of every stage, where the stage does not say otherwise");
  // A stage begins with what the recipe says for all.
  v.list(
      "stages", "In the order in which they run", stages.size(),
      [&](std::size_t index, ConfigVisitor& item) {
        while (index >= stages.size()) {
          stages.emplace_back();
          stages.back().training = training;
        }
        stages[index].visit(item);
      },
      [&] { stages.clear(); });
  v.field("seed", seed, "Of everything random");
  v.choice("device", device, {"auto", "cpu", "cuda"}, "auto: a GPU when there is one");
  v.choice("dtype", dtype, {"auto", "float32", "bfloat16"},
           "Of weights and activations; auto: float32 on the CPU, bfloat16 on a GPU");
  v.field("output", output, "Folder of the recipe's results: created, or continued where it was stopped");
  v.field("shard_size", shard_size, "Largest file of an export's weights, in GB");
  if (!v.reading()) return;
  shard_bytes(shard_size, v.place() + ": shard_size");
  recipe_config::check_stages(*this, v.place());
}

namespace recipe_config {

// Which layers are Mamba by then is not known either: the first ones stand for those that are restored.
ModelConfig with_restored(const ModelConfig& parent, const ModelConfig& teacher, const std::vector<std::int64_t>& layers,
                          const std::string& place) {
  std::set<std::int64_t> seen;
  for (const std::int64_t layer : layers) {
    require(layer >= 0 && layer < teacher.num_layers(), place, ": found layer ", layer, ", expected 0 to ",
            teacher.num_layers() - 1);
    require(seen.insert(layer).second, place, ": layer ", layer, " is named twice");
  }
  const std::vector<std::int64_t> before = attention_layers(teacher), now = attention_layers(parent);
  std::vector<std::int64_t> converted;
  std::set_difference(before.begin(), before.end(), now.begin(), now.end(), std::back_inserter(converted));
  converted.resize(std::min(converted.size(), layers.size()));
  return restored_config(parent, teacher, converted, place);
}

// What cannot be, and what no export could express, must not come out after hours of training.
void check_possible(const ModelConfig& config, const std::string& place) {
  try {
    const Model sizes(config);  // without storage
    make_config_json(config, family_for(config, Json()), OrderedJson(), "float32");
  } catch (const UserError& error) {
    fail(place, ": convert: ", error.what());
  }
}

}  // namespace recipe_config

std::map<std::string, ModelConfig> stage_configs(const RecipeConfig& recipe, const ModelConfig& teacher,
                                                 const std::string& place) {
  std::map<std::string, ModelConfig> configs = {{"teacher", teacher}};
  for (const StageConfig& stage : recipe.stages) {
    const std::string at = concat(place, ": stage ", stage.name);
    const ModelConfig begin = recipe_config::with_restored(configs.at(stage.from), teacher, stage.restore, at + ": restore");
    const std::vector<std::int64_t> open = attention_layers(begin);
    const auto before = static_cast<std::int64_t>(attention_layers(teacher).size() - open.size());
    const auto fresh = static_cast<std::size_t>(stage.mamba_layers - before);
    require(fresh <= open.size(), at, ": mamba_layers: found ", stage.mamba_layers, ", expected at most ",
            before + std::ssize(open), ", the attention layers of the teacher");
    configs[stage.name] =
        converted_config(begin, {open.end() - static_cast<std::ptrdiff_t>(fresh), open.end()}, stage.convert, at);
    recipe_config::check_possible(configs[stage.name], at);
  }
  return configs;
}

const StageConfig* RecipeConfig::find(const std::string& stage) const {
  const auto found = std::find_if(stages.begin(), stages.end(), [&](const StageConfig& each) { return each.name == stage; });
  return found == stages.end() ? nullptr : &*found;
}

}  // namespace molt
