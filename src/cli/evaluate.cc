#include "evaluate/evaluate.h"

#include <iomanip>
#include <iostream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/interrupt.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "formats/hugging_face.h"
#include "formats/peft.h"

namespace molt {

namespace evaluate_models {

struct Options {
  std::vector<std::string> models, set;
  TaskConfig task;
  std::string output;
  std::int64_t batch = 32;
  bool json = false;
  ComputeOptions compute;
};

// A folder name for a model's results: its path without what cannot be in a name.
std::string folder_name(const std::string& model) {
  std::string name = fs::path(model).lexically_normal().generic_string();
  while (!name.empty() && (name.back() == '/' || name.back() == '.')) name.pop_back();
  std::replace(name.begin(), name.end(), '/', '-');
  return name.substr(std::min(name.size(), name.find_first_not_of("-.")));
}

void print(const std::string& model, const TaskScore& score) {
  const auto percent = [](const Score& part) {
    std::ostringstream text;
    text << std::fixed << std::setprecision(1) << 100 * part.accuracy() << "% +- " << 100 * part.standard_error();
    return text.str();
  };
  std::cout << model << "  " << score.task << "  " << percent(score.score) << "  (" << score.score.correct << " of "
            << score.score.items << ")\n";
  for (const auto& [name, members] : score.groups)
    for (const auto& [value, part] : members)
      std::cout << "    " << std::left << std::setw(10) << name << std::right << std::setw(6) << value << "   " << percent(part)
                << "  (" << part.items << ")\n";
}

int run(Options& options) {
  parse_config("", "--set", options.set, [&](ConfigVisitor& v) { options.task.visit(v); });
  catch_interrupts();
  const auto task = make_task(options.task);
  OrderedJson all = OrderedJson::array();
  for (const auto& name : options.models) {
    const fs::path folder = resolve_model_folder(name);
    const auto model = load_model(folder, {options.compute.device(), options.compute.dtype()});
    EvaluateOptions evaluation;
    evaluation.batch = options.batch;
    evaluation.identity = fs::absolute(folder).lexically_normal().string();
    evaluation.output = fs::path(options.output) / folder_name(name) / task->name();
    const TaskScore score = evaluate(*model, Tokenizer::load(tokenizer_folder(folder)), *task, evaluation);
    if (!options.json) print(name, score);
    OrderedJson entry = score.to_json();
    entry["model"] = name;
    all.push_back(std::move(entry));
  }
  if (options.json) std::cout << all.dump(2) << "\n";
  return 0;
}

}  // namespace evaluate_models

Command evaluate_command() {
  return {"evaluate", "Score models on a task", [](Arguments& arguments) -> std::function<int()> {
            auto options = std::make_shared<evaluate_models::Options>();
            arguments.positional("MODEL", options->models, "Hugging Face folders, checkpoints or runs");
            arguments.choice("--task", options->task.name, {"synthetic", "gsm8k", "mmlu"}, "What to answer", true);
            arguments.option("--data", options->task.data, "JSONL file of the task; synthetic makes fresh problems without one");
            arguments.option("--limit", options->task.limit, "Items at most, 0 for all");
            arguments.option("--shots", options->task.shots, "Worked examples before each question");
            arguments.option("--shots-data", options->task.shots_data, "JSONL file that the examples come from");
            arguments.option("--set", options->set, "Other settings of the task: synthetic.steps_max=4, max_tokens=128, …");
            arguments.option("--batch", options->batch, "Sequences generated together");
            arguments.option("--output", options->output, "Folder for scores and every sample", true);
            arguments.flag("--json", options->json, "Print JSON");
            options->compute.declare(arguments);
            return [options] { return evaluate_models::run(*options); };
          }};
}

}  // namespace molt
