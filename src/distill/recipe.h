// A recipe: stages that turn a teacher into hybrids, each from the teacher or from an earlier stage, so that branches are
// natural. What a stage leaves unsaid (data, training) is the recipe's. A stage goes on in the data where the one before it
// stopped, as long as they read the same.
//
// The output folder:
//   recipe.json        the index, rewritten as stages advance (what `molt report` reads)
//   teacher/scores/    the teacher's scores on the tasks
//   <stage>/           config.yaml (resolved)  ranking.json  match/ (a run)  run/ (a run)  scores/<task>/  export/ (Hugging Face)
//
// recipe.json, paths relative to its folder:
//   {"recipe", "teacher": {"path", "layout", "parameters", "scores"},
//    "stages": [{"name", "from", "status": "pending" | "running" | "finished", "method", "mamba_layers", "restored", "converted":
//    [layers],
//                "layout", "ranking", "match", "run", "adapted" (lora.export), "export", "tokens" (of the stage), "total_tokens"
//                (since the teacher), "loss", "evaluation": {…}, "scores": {task: {…}}, "seconds"}]}
// A key that does not apply to a stage, or is not known yet, is absent.
#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/config.h"
#include "distill/convert.h"
#include "distill/rank.h"
#include "evaluate/task.h"
#include "train/config.h"

namespace molt {

// How a stage chooses the layers that it converts.
struct ChooseConfig {
  std::string method = "mmr";        // rank_methods()
  std::int64_t candidates = 0;       // rank only the first so many of the last ranking before this stage that are still attention
  std::vector<std::int64_t> layers;  // list: least important first
  RankConfig rank;                   // its data, seed, mixer and count are the stage's unless given
  void visit(ConfigVisitor& visitor);
};

// Adapters that a stage trains in place of its model's weights, and what its export then is.
struct StageLoraConfig : LoraConfig {
  std::string exported = "merged";  // whole weights; "adapters": as peft reads them, onto the export of what the stage comes from
  void visit(ConfigVisitor& visitor);
};

struct StageConfig {
  std::string name, from = "teacher";
  std::int64_t mamba_layers = 0;      // in the model after this stage
  std::vector<std::int64_t> restore;  // Mamba layers that become the teacher's attention again, before others are converted
  ChooseConfig choose;
  TargetMixerConfig convert = TargetMixerConfig::of("mamba");
  HeadConfig head;                      // a distillation_model (teacher) or none: SFT
  std::optional<StageLoraConfig> lora;  // only where no layer changes: adapters belong to weights that lie in a folder
  std::optional<DataConfig> data;
  LoopConfig training;
  std::optional<LoopConfig> match;  // before it: each new mixer alone is drawn to the teacher's (MixerMatching)
  void visit(ConfigVisitor& visitor);
};

struct TeacherConfig {
  PretrainedConfig pretrained;
  std::vector<std::string> logits;          // folders of `molt logits --top-k` of it, learnt from in its place
  std::string dtype = "auto";               // "fp8": its projections where its predictions are learnt from (Model::to_fp8)
  std::optional<ModelConfig> architecture;  // for --dry-run where the folder is not there
  void visit(ConfigVisitor& visitor);
};

struct RecipeConfig {
  TeacherConfig teacher;
  std::string tokenizer;  // folder with tokenizer.json; empty: the teacher's
  DataConfig data;
  std::map<std::string, HeldOutConfig> held_out;
  std::map<std::string, TaskConfig> evaluate;
  LoopConfig training;
  std::vector<StageConfig> stages;  // each after what it comes from
  std::int64_t seed = 0;
  std::string device = "auto", dtype = "auto";
  std::string output;
  double shard_size = 5;  // GB
  void visit(ConfigVisitor& visitor);

  const DataConfig& data_of(const StageConfig& stage) const { return stage.data ? *stage.data : data; }
  const StageConfig* find(const std::string& stage) const;  // null: no such stage, such as "teacher"
};

// The layers' configuration after each stage as far as it is known beforehand: which layers a ranking will choose is not, so the
// last ones stand for them. `place` starts errors.
std::map<std::string, ModelConfig> stage_configs(const RecipeConfig& recipe, const ModelConfig& teacher,
                                                 const std::string& place);

struct RecipeOptions {
  std::string place;  // "recipes/quickstart.yaml", starts errors
  std::map<std::string, std::string> versions;
  Changes changes = Changes::refuse;  // since the recipe was left
};

// Runs what is not finished. It can be stopped anywhere and continues from there; a stage whose configuration has changed since
// is a UserError that names the key, unless changes are accepted: then a finished one stays as it is, with a warning, and one
// that was begun keeps the layers that it has chosen and goes on from its last checkpoint. Throws Interrupted when a signal came.
void run_recipe(const RecipeConfig& config, const RecipeOptions& options);

}  // namespace molt
