#include <iostream>

#include "base/error.h"
#include "base/interrupt.h"
#include "cli/commands.h"
#include "cli/configuration_file.h"
#include "cli/options.h"
#include "cli/version.h"
#include "distill/run_training.h"

namespace molt {

namespace train_command_parts {

struct Options {
  std::string config;
  std::vector<std::string> set;
  bool accept_changes = false;
  ComputeOptions compute;
};

int run(const Options& options) {
  check_configuration_file(
      options.config, ConfigurationKind::training,
      {.data = concat("prepare data (molt prepare --input ", options.config,
                      " --tokenizer MODEL --output DATA) and name its folder there: data: {path: DATA}"),
       .model = concat("name a model there: model: {pretrained: {path: ", options.config, "}}, or a run's own config.yaml")});
  auto config = load_config<TrainConfig>(options.config, options.set);
  if (!options.compute.device_name.empty()) config.device = options.compute.device_name;
  if (!options.compute.dtype_name.empty()) config.dtype = options.compute.dtype_name;
  set_threads(options.compute.threads);
  catch_interrupts();
  RunModels models = open_models(config, options.config);
  const LoopResult result = run_training(config, models,
                                         {.place = options.config,
                                          .versions = program_versions(),
                                          .changes = options.accept_changes ? Changes::accept : Changes::offer});
  std::cout << "steps " << result.step << "\nloss " << result.loss << "\n";
  for (const auto& [name, value] : result.evaluation) std::cout << name << " " << value << "\n";
  std::cout << "checkpoint " << result.checkpoint.string() << std::endl;
  return 0;
}

}  // namespace train_command_parts

Command train_command() {
  return {"train", "Pretrain, fine-tune, or distil once", [](Arguments& arguments) -> std::function<int()> {
            auto options = std::make_shared<train_command_parts::Options>();
            arguments.positional("CONFIG", options->config, "YAML file (molt config train shows what it may say)");
            arguments.option("--set", options->set, "Override a key of the configuration: training.steps=100");
            arguments.flag("--accept-changes", options->accept_changes, accept_changes_help);
            options->compute.declare(arguments);
            return [options] { return train_command_parts::run(*options); };
          }};
}

}  // namespace molt
