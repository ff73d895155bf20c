#include "evaluate/evaluate.h"

#include <iomanip>
#include <iostream>
#include <nlohmann/json.hpp>

#include "base/counted.h"
#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "evaluate/perplexity.h"
#include "formats/hugging_face.h"
#include "formats/peft.h"
#include "report/samples_page.h"

namespace molt {

namespace evaluate_models {

struct Options {
  std::vector<std::string> models, set;
  TaskConfig task;
  std::string output;
  std::int64_t batch = 32;
  bool json = false, html = false;
  ComputeOptions compute;
};

// A folder name for a model's results: its path without what cannot be in a name.
std::string folder_name(const std::string& model) {
  std::string name = fs::path(model).lexically_normal().generic_string();
  while (!name.empty() && (name.back() == '/' || name.back() == '.')) name.pop_back();
  std::replace(name.begin(), name.end(), '/', '-');
  return name.substr(std::min(name.size(), name.find_first_not_of("-.")));
}

std::string percent(const Score& part) {
  std::ostringstream text;
  text << std::fixed << std::setprecision(1) << 100 * part.accuracy() << "% +- " << 100 * part.standard_error();
  return text.str();
}

void print(const std::string& model, const TaskScore& score) {
  std::cout << model << "  " << score.task << "  " << percent(score.score) << "  (" << score.correct << " of " << score.samples;
  if (score.samples != score.score.items()) std::cout << " samples of " << counted(score.score.items(), "item");
  std::cout << ")\n";
  for (const auto& [k, pass] : score.pass)
    std::cout << "    " << std::left << std::setw(12) << concat("pass@", k) << percent(pass) << "    " << std::setw(10)
              << concat("maj@", k) << percent(score.majority.at(k)) << std::right << "\n";
  for (const auto& [name, members] : score.groups)
    for (const auto& [value, part] : members)
      std::cout << "    " << std::left << std::setw(10) << name << std::right << std::setw(6) << to_string(value) << "   "
                << percent(part) << "  (" << part.items() << ")\n";
}

void print(const std::string& model, const Perplexity& found) {
  std::cout << model << "  perplexity " << std::setprecision(5) << found.perplexity() << "  loss " << found.loss() << " +- "
            << std::setprecision(2) << found.standard_error << "  bits per byte " << std::setprecision(5) << found.bits_per_byte()
            << "  (" << counted(found.tokens, "token") << ", " << counted(found.bytes, "byte") << ")\n";
}

// `task` is null for perplexity.
OrderedJson score_model(const Options& options, const std::string& name, const Task* task) {
  const fs::path folder = resolve_model_folder(name);
  const auto model = load_model(folder, {options.compute.device(), options.compute.dtype()});
  const auto tokenizer = Tokenizer::load(tokenizer_folder(folder));
  EvaluateOptions evaluation;
  evaluation.batch = options.batch;
  set_model(evaluation, folder);
  evaluation.output = fs::path(options.output) / folder_name(name) / options.task.name;
  evaluation.template_folder = tokenizer_folder(folder);
  if (!task) {
    const Perplexity found =
        measure_perplexity(*model, *tokenizer, options.task.data, perplexity_options(options.task, evaluation));
    if (!options.json) print(name, found);
    return found.to_json();
  }
  const TaskScore score = evaluate(*model, tokenizer, *task, evaluation);
  if (!options.json) print(name, score);
  if (options.html) log_info(report::write_samples_page(evaluation.output).string());
  return score.to_json();
}

int run(Options& options) {
  const bool perplexity = options.task.name == "perplexity";
  parse_config("", "--set", options.set, [&](ConfigVisitor& v) { options.task.visit(v); });
  require(!perplexity || !options.task.data.empty(), "task perplexity: --data: expected a file of text");
  if (options.task.samples > 1 && options.task.temperature == 0)
    log_warning("--n without --temperature: every answer will be the same");
  catch_interrupts();
  for (const std::string& name : options.models) resolve_model_folder(name);  // before hours go into the first
  const auto task = perplexity ? nullptr : make_task(options.task);
  OrderedJson all = OrderedJson::array();
  for (const auto& name : options.models) {
    OrderedJson entry = score_model(options, name, task.get());
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
            TaskConfig& task = options->task;
            arguments.choice("--task", task.name, task_names(), "What to answer", true);
            arguments.option("--data", task.data, "The task's file; synthetic makes fresh problems without one");
            arguments.option("--limit", task.limit, "Items at most, 0 for all");
            arguments.choice("--form", task.form, {"plain", "chat"}, "Plain text, or the model's chat template");
            arguments.option("--system", task.system, "System prompt of the chat form");
            arguments.option("--shots", task.shots, "Worked examples before each question");
            arguments.option("--shots-data", task.shots_data, "File that the examples come from");
            arguments.option("--n", task.samples, "Answers of each item: also pass@k and maj@k");
            arguments.option("--temperature", task.temperature, "0 always takes the most probable token");
            arguments.option("--top-p", task.top_p, "Only the most probable tokens that reach this sum");
            arguments.option("--seed", task.seed, "Of the answers, and of the order of GPQA's choices");
            arguments.option("--set", options->set, "Other settings of the task: instruction=none, max_tokens=128, …");
            arguments.option("--window", task.window, "Of perplexity: tokens seen at once, 0 for the context");
            arguments.option("--stride", task.stride, "Of perplexity: new tokens of a window, 0 for half");
            arguments.option("--batch", options->batch, "Sequences generated together");
            arguments.option("--output", options->output, "Folder for scores and every sample", true);
            arguments.flag("--html", options->html, "Also write samples.html: every sample, for a browser");
            arguments.flag("--json", options->json, "Print JSON");
            options->compute.declare(arguments);
            return [options] { return evaluate_models::run(*options); };
          }};
}

}  // namespace molt
