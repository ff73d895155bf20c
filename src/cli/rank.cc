#include "distill/rank.h"

#include <iomanip>
#include <iostream>

#include "base/error.h"
#include "base/interrupt.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "distill/run_training.h"
#include "formats/hugging_face.h"
#include "formats/peft.h"

namespace molt {

namespace rank_command_parts {

struct Options {
  std::string model, teacher, data, output;
  std::string method = "loo", scope = "layer", task;
  std::vector<std::int64_t> layers;
  std::optional<std::int64_t> steps, student_steps, held_out_tokens, seed, count;
  bool greedy = false;
  std::vector<std::string> set;
  ComputeOptions compute;
};

// The settings that options stand for, and those of --set.
Overrides settings(const Options& options) {
  Overrides given;
  given.add("--method", "method=" + options.method);
  if (!options.data.empty()) {
    given.add("--data", options.data == "synthetic" ? "data.synthetic={}" : "data.path=" + options.data);
  }
  if (options.scope != Options().scope || options.method == "loo") given.add("--scope", "scope=" + options.scope);
  if (!options.task.empty()) {
    given.add("--task", "metric=task");
    given.add("--task", "task.name=" + options.task);
  }
  const auto add = [&](const char* option, const char* key, const std::optional<std::int64_t>& value) {
    if (value) given.add(option, concat(key, "=", *value));
  };
  add("--steps", "steps", options.steps);
  add("--student-steps", "student_steps", options.student_steps);
  add("--held-out-tokens", "held_out_tokens", options.held_out_tokens);
  add("--seed", "seed", options.seed);
  add("--count", "count", options.count);
  if (options.greedy) given.add("--greedy", "greedy=true");
  given.add(options.set);
  return given;
}

RankConfig configuration(const Options& options) {
  RankConfig config;
  const std::string place = "molt rank --method " + options.method;
  parse_config("", place, settings(options), [&](ConfigVisitor& v) { config.visit(v); });
  require(options.teacher.empty() || config.distils(), "--teacher: no setting of ", place, ", which distils nothing");
  if (!options.layers.empty()) config.layers = options.layers;
  return config;
}

int run(const Options& options) {
  const RankConfig config = configuration(options);
  const fs::path folder = resolve_model_folder(options.model);
  const LoadOptions load{options.compute.device(), options.compute.dtype()};
  catch_interrupts();
  const std::unique_ptr<Model> model = load_model(folder, load);
  std::shared_ptr<const Model> teacher;
  if (config.distils()) {
    teacher = options.teacher.empty() ? model->share() : load_model(resolve_model_folder(options.teacher), load);
    share_equal_tensors(*model, *teacher);
  }
  std::shared_ptr<const Tokenizer> tokenizer;
  const fs::path texts = tokenizer_folder(folder);
  if (fs::exists(texts / "tokenizer.json")) tokenizer = Tokenizer::load(texts);

  const Ranking ranking = rank_layers(config, {*model, teacher, tokenizer, "molt rank", folder}, options.output);
  std::cout << "least important first\nlayer  score\n";
  for (const std::int64_t layer : ranking.order) {
    for (const LayerFigure& figure : ranking.layers) {
      if (figure.layer != layer) continue;
      std::cout << std::setw(5) << layer << "  " << std::setprecision(5) << figure.score << " +- " << std::setprecision(2)
                << figure.standard_error << "\n";
    }
  }
  return 0;
}

}  // namespace rank_command_parts

Command rank_command() {
  return {"rank", "Find the attention layers that can be spared", [](Arguments& arguments) -> std::function<int()> {
            auto options = std::make_shared<rank_command_parts::Options>();
            arguments.positional("MODEL", options->model, "Hugging Face folder, checkpoint or run");
            arguments.option("--teacher", options->teacher, "Model that mmr and kl distil from (default: MODEL itself)");
            arguments.choice(
                "--method", options->method, rank_methods(),
                "loo: leave each layer out; mmr: train a Mamba mixer in each layer's place; kl: restore each layer "
                "of a student that is Mamba in all of them; random, uniform: baselines; list: the order of --layers");
            arguments.option("--data", options->data, "Folder of molt prepare, or synthetic for fresh problems");
            arguments.choice("--scope", options->scope, {"layer", "mixer"}, "What loo leaves out");
            arguments.option("--task", options->task, "loo by accuracy on this task instead of the loss");
            arguments.option("--steps", options->steps, "Training steps of each candidate of mmr; of kl, once it is restored");
            arguments.option("--student-steps", options->student_steps, "Training steps of kl's student");
            arguments.flag("--greedy", options->greedy, "kl: restore the best layer, then rank the others again, and so on");
            arguments.option("--count", options->count, "uniform: space so many evenly");
            arguments.option("--layers", options->layers, "Candidates (default: every attention layer)");
            arguments.option("--held-out-tokens", options->held_out_tokens, "Tokens on which layers are compared");
            arguments.option("--seed", options->seed, "Order of the data, new weights");
            arguments.option("--set", options->set, "Any other setting (molt config rank): optimizer.learning_rate=1e-3");
            arguments.option("--output", options->output, "JSON file to write, or to continue", true);
            options->compute.declare(arguments);
            return [options] { return rank_command_parts::run(*options); };
          }};
}

}  // namespace molt
