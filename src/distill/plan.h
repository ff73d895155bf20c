// What a recipe will cost, from configurations alone: no weights are read.
#pragma once
#include <string>
#include <vector>

#include "distill/recipe.h"
#include "train/memory_plan.h"

namespace molt {

struct StagePlan {
  std::string name, from;
  std::string how;  // "mmr of 4, reverse_kl", "list, reverse_kl", "SFT"
  std::int64_t layers = 0, mamba_layers = 0;
  double parameters = 0, trained = 0;
  double tokens = 0;                            // of end-to-end training and matching
  bool at_most = false;                         // a flat loss may end them earlier
  double student_flops = 0, teacher_flops = 0;  // of those tokens, forward and backward
  double ranking_flops = 0;
  double sampling_flops = 0;  // of the student's own texts, at most (SamplingCost)
  MemoryPlan memory;
  double disk = 0;     // bytes: checkpoints at their most, and the export
  double seconds = 0;  // of rankings and trainings, where they were measured (measure.h)
};

struct RecipePlan {
  double teacher_parameters = 0;
  std::int64_t context = 0;  // tokens that a token sees on average, assumed for FLOPs
  at::ScalarType dtype;
  std::vector<StagePlan> stages;
};

// The teacher's configuration: its folder's, or teacher.architecture where the folder is not there. UserError without either.
ModelConfig teacher_config(const RecipeConfig& recipe, const std::string& place);
RecipePlan plan_recipe(const RecipeConfig& recipe, const ModelConfig& teacher, const std::string& place);

// A memory to fit into: "GPU" or "RAM", in bytes; the GPU where the recipe's device finds one.
struct Machine {
  std::string memory;
  double bytes;
  double free_disk = 0;  // bytes where the recipe's output will lie; 0: not known
};
// `output` need not be there yet.
Machine this_machine(const std::string& device, const std::string& place, const fs::path& output = {});

// The plan as a table for people, with what fits.
std::string plan_text(const RecipePlan& plan, const Machine& machine);

}  // namespace molt
