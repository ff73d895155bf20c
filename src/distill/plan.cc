#include "distill/plan.h"

#include <c10/core/CachingDeviceAllocator.h>
#include <unistd.h>

#include <algorithm>
#include <iomanip>
#include <set>

#include "base/error.h"
#include "base/progress.h"
#include "base/text_table.h"
#include "distill/costs.h"
#include "distill/objective.h"
#include "distill/on_policy.h"
#include "distill/run_training.h"
#include "formats/hugging_face.h"
#include "ops/device.h"
#include "train/lora.h"
#include "train/objective.h"
#include "train/trained_names.h"

namespace molt {

namespace planning {

constexpr double fp32_bytes = 4;

double ranking_flops(const StageConfig& stage, const Model& student, const Model& teacher, std::int64_t candidates,
                     double context) {
  const RankConfig& rank = stage.choose.rank;
  const auto at = static_cast<std::int64_t>(context);
  const auto held_out = static_cast<double>(rank.held_out_tokens);
  const auto count = static_cast<double>(candidates);
  const std::string& method = stage.choose.method;
  // On average half of the layers follow the one that is left out.
  if (method == "loo") return held_out * student.flops(at) * (1.5 + count / 2);
  const auto step_tokens = static_cast<double>(rank.micro_batches * rank.micro_batch_tokens);
  const double lesson = static_cast<double>(rank.steps) * step_tokens;
  if (method == "mmr") return count * (lesson * (2 * student.flops(at) + teacher.flops(at)) + 2 * held_out * student.flops(at));
  if (method != "kl") return 0;
  const double tried = 1 + (rank.greedy ? count * (count + 1) / 2 : count);
  return static_cast<double>(rank.match_steps + rank.student_steps) * step_tokens * (3 * student.flops(at) + teacher.flops(at)) +
         tried * (lesson * 3 * student.flops(at) + held_out * student.flops(at)) + (lesson + held_out) * teacher.flops(at);
}

double checkpoint_disk(const LoopConfig& loop, double weights, double trained) {
  return static_cast<double>(loop.keep_checkpoints + 1) * (weights + trained * 3 * fp32_bytes);
}

class Planner {
 public:
  Planner(const RecipeConfig& recipe, const ModelConfig& teacher, at::Device device, at::ScalarType dtype,
          const std::string& place)
      : recipe_(recipe),
        place_(place),
        configs_(stage_configs(recipe, teacher, place)),
        teacher_(teacher),
        device_(device),
        dtype_(dtype) {
    for (const Parameter& parameter : teacher_.parameters()) teacher_names_.insert(parameter.name);
  }

  StagePlan stage(const StageConfig& stage) {
    Model student(configs_.at(stage.name)), before(configs_.at(stage.from));
    student.to(at::kCPU, dtype_);  // the tensors stay on the meta device
    const std::vector<std::int64_t> open = attention_layers(before.config());
    std::vector<std::int64_t> fresh;
    for (const std::int64_t layer : open) {
      const std::vector<std::int64_t> left = attention_layers(student.config());
      if (!std::binary_search(left.begin(), left.end(), layer)) fresh.push_back(layer);
    }
    const std::int64_t context = mean_context(recipe_.data_of(stage), stage.training.micro_batch_tokens);
    StagePlan plan;
    plan.name = stage.name;
    plan.from = stage.from;
    plan.layers = student.config().num_layers();
    plan.mamba_layers = stage.mamba_layers;
    plan.parameters = parameter_count(student);
    plan.how = concat(stage.head.distills() ? stage.head.divergence_name() : "SFT", stage.lora ? ", LoRA" : "");
    const double tokens = training_tokens(stage.training);
    plan.tokens = tokens;
    plan.at_most = stage.training.flat.window > 0 || (stage.match && stage.match->flat.window > 0);
    plan.teacher_flops = stage.head.distills() && recipe_.teacher.logits.empty() ? tokens * teacher_.flops(context) : 0;
    if (!fresh.empty()) {
      const std::int64_t candidates = stage.choose.candidates > 0 ? stage.choose.candidates : std::ssize(open);
      plan.ranking_flops = ranking_flops(stage, before, teacher_, candidates, static_cast<double>(context));
      const std::string of = plan.ranking_flops > 0 ? concat(" of ", candidates) : "";
      plan.how = concat(stage.choose.method, of, ", ", plan.how);
    }

    add_weights(stage, student, plan);
    plan.student_flops = tokens * NextToken().flops(student, context);
    const double teacher_element = element() + (recipe_.teacher.dtype == "fp8" ? 1 : 0);  // both forms are in memory
    plan.memory.teacher = stage.head.distills() || !fresh.empty() ? parameter_count(teacher_) * teacher_element : 0;
    plan_training(plan.memory, plan.trained, stage.training, dtype_, device_);
    const bool live = stage.head.distills() && recipe_.teacher.logits.empty();
    plan.memory.activations = activation_bytes(student, live ? &teacher_ : nullptr,
                                               {.tokens = stage.training.micro_batch_tokens,
                                                .recompute = recompute_of(stage.training.recompute),
                                                .dtype = dtype_,
                                                .device = device_,
                                                .stored_teacher = stage.head.distills() && !live});

    add_sampling(stage, student, context, plan);
    const double weights = plan.parameters * element(), saved = stage.lora ? plan.trained * element() : weights;
    const double exported = stage.lora && stage.lora->exported == "adapters" ? saved : weights;
    plan.disk = checkpoint_disk(stage.training, saved, plan.trained) + exported;
    if (stage.match && !fresh.empty()) add_matching(*stage.match, student, fresh, context, plan);
    return plan;
  }

  double teacher_parameters() { return parameter_count(teacher_); }

 private:
  // What trains, and what the student does not share with the teacher.
  void add_weights(const StageConfig& stage, Model& student, StagePlan& plan) {
    if (stage.lora) add_adapters(student, *stage.lora, 0, concat(place_, ": stage ", stage.name, ": lora"));
    const std::set<std::string> trained =
        trained_names(student, stage.training.trainable, concat(place_, ": stage ", stage.name, ": training.trainable"));
    std::set<std::string>& touched = touched_[stage.name] = touched_[stage.from];
    student.visit([&](const std::string& name, at::Tensor& value) {
      const auto values = static_cast<double>(value.numel());
      if (trained.contains(name)) plan.trained += values;
      value.set_requires_grad(trained.contains(name));
      const bool shared = !trained.contains(name) && !touched.contains(name) && teacher_names_.contains(name);
      if (!shared) plan.memory.student += values * element();
    });
    touched.insert(trained.begin(), trained.end());
    student.visit(ParameterVisitor::of_linears([&](const std::string& name, Linear& linear) {
      if (!linear.adapters.empty()) touched.insert(name + ".weight");  // merged
    }));
  }

  void add_sampling(const StageConfig& stage, const Model& student, std::int64_t context, StagePlan& plan) const {
    const auto& own = recipe_.data_of(stage).on_policy;
    if (!own) return;
    const SamplingCost cost = sampling_cost(*own, stage.training.micro_batch_tokens, context);
    const double batches = training_tokens(stage.training) / static_cast<double>(stage.training.micro_batch_tokens);
    plan.sampling_flops = own->fraction * batches * cost.flops(student);
    plan.memory.sampling = cost.bytes(student, own->max_sequences);
  }

  void add_matching(const LoopConfig& match, Model& student, const std::vector<std::int64_t>& fresh, std::int64_t context,
                    StagePlan& plan) {
    const double matched = training_tokens(match);
    double mixers = 0, new_values = 0;
    for (const std::int64_t layer : fresh) {
      Mixer& mixer = student.blocks[static_cast<std::size_t>(layer)].mixer();
      mixers += 3 * mixer.flops(context);
      mixer.visit("", [&](const std::string&, at::Tensor& value) { new_values += static_cast<double>(value.numel()); });
    }
    plan.tokens += matched;
    plan.student_flops += matched * mixers;
    plan.teacher_flops += matched * teacher_.flops(context);
    plan.disk += checkpoint_disk(match, plan.parameters * element(), new_values);
  }

  double element() const { return static_cast<double>(c10::elementSize(dtype_)); }

  const RecipeConfig& recipe_;
  const std::string& place_;
  std::map<std::string, ModelConfig> configs_;
  Model teacher_;
  at::Device device_;
  at::ScalarType dtype_;
  std::set<std::string> teacher_names_;
  std::map<std::string, std::set<std::string>> touched_;  // by stage: parameters that are not the teacher's any more
};

std::string scientific(double value) {
  std::ostringstream text;
  text << std::scientific << std::setprecision(2) << value;
  return value == 0 ? "-" : text.str();
}

}  // namespace planning

ModelConfig teacher_config(const RecipeConfig& recipe, const std::string& place) {
  const std::string& path = recipe.teacher.pretrained.path;
  if (!path.empty() && (fs::exists(path) || !recipe.teacher.architecture)) {
    return read_model_config(resolve_model_folder(path));
  }
  require(recipe.teacher.architecture && !recipe.teacher.architecture->blocks.empty(), place,
          ": teacher: found neither a folder (pretrained.path) nor an architecture, expected one of them");
  return *recipe.teacher.architecture;
}

RecipePlan plan_recipe(const RecipeConfig& recipe, const ModelConfig& teacher, const std::string& place) {
  RecipePlan plan;
  const bool on_gpu = recipe.device == "cuda" || (recipe.device == "auto" && this_machine("auto", place).memory == "GPU");
  const at::Device device = on_gpu ? at::Device(at::kCUDA, 0) : at::Device(at::kCPU);
  plan.dtype = dtype_of(recipe.dtype, device);
  planning::Planner planner(recipe, teacher, device, plan.dtype, place);
  plan.teacher_parameters = planner.teacher_parameters();
  plan.context = mean_context(recipe.data, recipe.training.micro_batch_tokens);
  for (const StageConfig& stage : recipe.stages) plan.stages.push_back(planner.stage(stage));
  return plan;
}

Machine this_machine(const std::string& device, const std::string& place, const fs::path& output) {
  const bool on_gpu = device_of(device, place + ": device").is_cuda();
  Machine machine{on_gpu ? "GPU" : "RAM", 0, 0};
  machine.bytes = on_gpu ? static_cast<double>(c10::getDeviceAllocator(at::kCUDA)->getMemoryInfo(0).second)
                         : static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGESIZE));
  if (output.empty()) return machine;
  fs::path folder = fs::absolute(output);
  while (!fs::exists(folder) && folder.has_relative_path()) folder = folder.parent_path();
  std::error_code error;
  const fs::space_info space = fs::space(folder, error);
  if (!error) machine.free_disk = static_cast<double>(space.available);
  return machine;
}

std::string plan_text(const RecipePlan& plan, const Machine& machine) {
  using planning::scientific;
  double tokens = 0, flops = 0, disk = 0, seconds = 0;
  const bool measured = std::any_of(plan.stages.begin(), plan.stages.end(), [](const StagePlan& s) { return s.seconds > 0; });
  std::vector<std::vector<std::string>> work = {{"stage", "from", "Mamba", "how", "tokens", "student", "teacher", "ranking"}};
  const bool samples =
      std::any_of(plan.stages.begin(), plan.stages.end(), [](const StagePlan& s) { return s.sampling_flops > 0; });
  if (samples) work.back().emplace_back("sampling");
  if (measured) work.back().emplace_back("time");
  std::vector<std::vector<std::string>> memory = {
      {"stage", "trained", "teacher", "student", "gradients", "optimizer", "saving", "activations", "total", "disk", ""}};
  if (samples) memory.back().insert(memory.back().end() - 3, "caches");
  for (const StagePlan& stage : plan.stages) {
    tokens += stage.tokens;
    flops += stage.student_flops + stage.teacher_flops + stage.ranking_flops + stage.sampling_flops;
    disk += stage.disk;
    seconds += stage.seconds;
    work.push_back({stage.name, stage.from, concat(stage.mamba_layers, "/", stage.layers), stage.how,
                    concat(stage.at_most ? "<= " : "", human_count(stage.tokens)), scientific(stage.student_flops),
                    scientific(stage.teacher_flops), scientific(stage.ranking_flops)});
    if (samples) work.back().push_back(scientific(stage.sampling_flops));
    if (measured) work.back().push_back(stage.seconds > 0 ? human_time(stage.seconds) : "-");
    const MemoryPlan& m = stage.memory;
    memory.push_back({stage.name, human_count(stage.trained), human_bytes(m.teacher), human_bytes(m.student),
                      human_bytes(m.gradients), human_bytes(m.optimizer), human_bytes(m.saving), human_bytes(m.activations),
                      human_bytes(m.total()), human_bytes(stage.disk), m.total() <= machine.bytes ? "fits" : "does not fit"});
    if (samples) memory.back().insert(memory.back().end() - 3, human_bytes(m.sampling));
  }
  return concat("teacher: ", human_count(plan.teacher_parameters), " parameters",
                plan.teacher_parameters < 1e9 ? "" : concat(" (", fixed_text(plan.teacher_parameters / 1e9, 3), " B)"),
                "\n\nWork: tokens, and FLOPs at ", plan.context, " tokens of context\n", text_table(work), "in all ",
                human_count(tokens), " tokens, ", scientific(flops), " FLOPs",
                measured ? concat(", about ", human_time(seconds), " by a short trial, evaluations not counted") : "",
                "\n\nMemory while training in ", dtype_word(plan.dtype), " (activations are an estimate), against ",
                human_bytes(machine.bytes), " of ", machine.memory, "\n", text_table(memory), "in all ", human_bytes(disk),
                " of disk for checkpoints and exports",
                machine.free_disk > 0 ? concat(", ", human_bytes(machine.free_disk), " are free") : "", "\n");
}

}  // namespace molt
