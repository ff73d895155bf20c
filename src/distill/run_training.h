// One training run from its configuration: what `molt train` does, and every stage of a recipe.
#pragma once
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "distill/teacher.h"
#include "text/tokenizer.h"
#include "train/config.h"
#include "train/memory_plan.h"

namespace molt {

// What a run works on, in memory.
struct RunModels {
  std::unique_ptr<Model> student;
  std::shared_ptr<const Model> teacher;             // null where nothing is distilled
  std::shared_ptr<const Tokenizer> tokenizer;       // null where none is named
  fs::path like;                                    // the folder whose tokenizer and settings exports carry; may be empty
  std::shared_ptr<const StoredLogits> logits = {};  // in the teacher's place
  // Where the student, and the teacher or its logits, were read from; empty where nobody needs to notice other weights there.
  std::string student_folder = {};
  std::vector<std::string> teacher_folders = {};

  // Who the head's divergence is from; null where nothing is distilled.
  std::shared_ptr<const Teacher> lecturer() const;
};

// Loads or initialises the models of a configuration. A teacher from the student's folder shares all its tensors, one from
// another folder those that are equal, so that what stays frozen exists once. `place` ("train.yaml") starts the errors.
RunModels open_models(const TrainConfig& config, const std::string& place);

// The model with its projections in eight bits if `dtype` is "fp8"; other tensors are shared. `place` starts the error for a GPU
// without such products.
std::shared_ptr<const Model> in_dtype(std::shared_ptr<const Model> model, const std::string& dtype, const std::string& place);

// Gives the student the teacher's tensor wherever both have one of the same name, type and content. Returns the bytes that exist
// once instead of twice.
std::int64_t share_equal_tensors(Model& student, const Model& teacher);

// The loss of a head: next-token cross-entropy, a divergence from the teacher, or a mix.
std::unique_ptr<Objective> make_objective(const HeadConfig& head, std::shared_ptr<const Teacher> teacher);

// The batches of a data section in the order of the seed. A sample with a token that the model does not know is a UserError.
std::unique_ptr<BatchSource> open_source(const DataConfig& data, const std::shared_ptr<const Tokenizer>& tokenizer,
                                         std::int64_t vocabulary, std::uint64_t seed, const std::string& place);

// How much memory a run of these models takes, with the head's objective. `place` starts errors.
MemoryPlan plan_run(const TrainConfig& config, RunModels& models, const std::string& place);

struct RunOptions {
  std::string place;                            // of the configuration, starts errors
  std::map<std::string, std::string> versions;  // of the program
  std::vector<Evaluator*> evaluators = {};      // beside the held-out data of the configuration
  Objective* objective = nullptr;               // instead of the head's
  std::shared_ptr<const Json> position = {};    // of the data where a new run begins; null: its start
  std::string resolved = {};                    // kept as the run's config.yaml instead of the configuration's own text
  Changes changes = Changes::refuse;            // since the run was left
};

// UserError for a folder of results that is not named or is a model's: `place` (the configuration) starts it.
void check_output(const std::string& output, const std::string& place);

// Trains the student to the end in config.output, continuing what lies there.
LoopResult run_training(const TrainConfig& config, RunModels& models, const RunOptions& options);

}  // namespace molt
