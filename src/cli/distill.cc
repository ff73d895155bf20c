#include <iomanip>
#include <iostream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/interrupt.h"
#include "cli/commands.h"
#include "cli/configuration_file.h"
#include "cli/options.h"
#include "cli/version.h"
#include "distill/layout_strip.h"
#include "distill/measure.h"
#include "distill/plan.h"
#include "distill/recipe.h"
#include "evaluate/score.h"

namespace molt {

namespace distill_command_parts {

struct Options {
  std::string recipe;
  std::vector<std::string> set;
  bool dry_run = false, measure = false, accept_changes = false;
  double memory = 0;
  ComputeOptions compute;
};

void print_result(const std::string& name, const OrderedJson& entry, std::size_t width) {
  std::cout << std::left << std::setw(static_cast<int>(width)) << name << "  "
            << layout_strip(entry["layout"].get<std::vector<std::string>>()) << std::right;
  if (entry.contains("total_tokens")) {
    std::cout << "  " << std::setw(11) << std::llround(entry["total_tokens"].get<double>()) << " tokens";
  }
  if (entry.contains("scores")) {
    for (const auto& [task, score] : entry["scores"].items()) {
      std::cout << "  " << task << " " << score_text(score);
    }
  }
  std::cout << "\n";
}

void plan(const Options& options, RecipeConfig& recipe) {
  require(options.memory >= 0, "--memory: found ", options.memory, ", expected the GB of a GPU");
  require(options.memory == 0 || !options.measure, "--measure: found --memory, expected the GPU itself");
  const ModelConfig teacher = teacher_config(recipe, options.recipe);
  if (options.memory > 0) recipe.device = "cuda";
  const Machine machine =
      options.memory > 0 ? Machine{"GPU", options.memory * 1e9} : this_machine(recipe.device, options.recipe, recipe.output);
  RecipePlan plan = plan_recipe(recipe, teacher, options.recipe);
  catch_interrupts();
  if (options.measure) measure_recipe(recipe, teacher, machine, options.recipe, plan);
  std::cout << plan_text(plan, machine);
}

int run(const Options& options) {
  check_configuration_file(options.recipe, ConfigurationKind::recipe,
                           {.data = concat("prepare data (molt prepare --input ", options.recipe,
                                           " --tokenizer TEACHER --output DATA) and name its folder there: data: {path: DATA}"),
                            .model = concat("name the teacher there: teacher: {pretrained: {path: ", options.recipe, "}}")});
  auto recipe = load_config<RecipeConfig>(options.recipe, options.set);
  if (!options.compute.device_name.empty()) recipe.device = options.compute.device_name;
  if (!options.compute.dtype_name.empty()) recipe.dtype = options.compute.dtype_name;
  set_threads(options.compute.threads);
  require(options.dry_run || !options.measure, "--measure: expected --dry-run beside it");
  require(options.dry_run || options.memory == 0, "--memory: expected --dry-run beside it");
  if (options.dry_run) {
    plan(options, recipe);
    return 0;
  }
  catch_interrupts();
  run_recipe(recipe, {options.recipe, program_versions(), options.accept_changes ? Changes::accept : Changes::offer});
  const fs::path path = fs::path(recipe.output) / "recipe.json";
  const OrderedJson index = parse_ordered_json(read_file(path), path.string());
  std::size_t width = 7;
  for (const auto& stage : index["stages"]) width = std::max(width, stage["name"].get<std::string>().size());
  std::cout << layout_legend << "\n";
  print_result("teacher", index["teacher"], width);
  for (const auto& stage : index["stages"]) print_result(stage["name"].get<std::string>(), stage, width);
  return 0;
}

}  // namespace distill_command_parts

Command distill_command() {
  return {"distill", "Turn a teacher into hybrids, stage by stage", [](Arguments& arguments) -> std::function<int()> {
            auto options = std::make_shared<distill_command_parts::Options>();
            arguments.positional("RECIPE", options->recipe, "YAML file (molt config recipe shows what it may say)");
            arguments.option("--set", options->set, "Override a key of the recipe: stages[0].training.steps=100");
            arguments.flag("--dry-run", options->dry_run, "Print tokens, FLOPs, memory, disk and what fits on this machine");
            arguments.flag("--measure", options->measure, "With --dry-run: also how long it takes, from a short trial");
            arguments.option("--memory", options->memory,
                             "With --dry-run: plan for a GPU of so many GB that is not here, 0: for this machine");
            arguments.flag("--accept-changes", options->accept_changes, accept_changes_help);
            options->compute.declare(arguments);
            return [options] { return distill_command_parts::run(*options); };
          }};
}

}  // namespace molt
