#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/counted.h"
#include "base/error.h"
#include "base/interrupt.h"
#include "base/json.h"
#include "base/log.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "evaluate/evaluate.h"
#include "evaluate/traces.h"
#include "formats/hugging_face.h"
#include "formats/peft.h"
#include "infer/generate_file.h"
#include "infer/text_generation.h"

namespace molt {
namespace generate {

struct Options {
  std::string model, prompt, input, output;
  TextRequest request;
  std::string check;
  TaskConfig task;
  std::vector<std::string> set;
  std::optional<std::int64_t> given_max_tokens;
  std::int64_t seed = 0, samples = 1, batch = 32;
  bool json = false;
  ComputeOptions compute;
};

OrderedJson to_json(const GeneratedText& result, std::int64_t sample) {
  return {{"sample", sample},
          {"text", result.text},
          {"finish_reason", to_string(result.reason)},
          {"prompt_tokens", result.prompt_tokens},
          {"tokens", result.tokens},
          {"log_probabilities", result.log_probabilities}};
}

// One prompt: a single sample is printed as it comes, several one after another.
void answer_prompt(const Options& options, const Model& model, const std::shared_ptr<const Tokenizer>& tokenizer) {
  std::vector<TextRequest> requests;
  for (std::int64_t i = 0; i < options.samples; ++i) requests.push_back(sample_of(options.request, i));
  const bool stream = options.samples == 1 && !options.json;
  const auto results = generate_texts(model, tokenizer, requests, options.batch, [&](const TextEvent& event) {
    if (stream) std::cout << event.piece << std::flush;
  });
  if (options.json) {
    OrderedJson all = OrderedJson::array();
    for (std::size_t i = 0; i < results.size(); ++i) all.push_back(to_json(results[i], static_cast<std::int64_t>(i)));
    std::cout << all.dump(2, ' ', false, OrderedJson::error_handler_t::replace);
  } else if (!stream) {
    for (std::size_t i = 0; i < results.size(); ++i) std::cout << (i ? "\n---\n" : "") << results[i].text;
  }
  std::cout << "\n";
}

// The task's settings as `options` has them, --set last.
TaskConfig checked_task(Options& options) {
  TaskConfig task = options.task;
  task.name = options.check;
  task.data = options.input;
  task.samples = options.samples;
  task.temperature = options.request.sampling.temperature;
  task.top_k = options.request.sampling.top_k;
  task.top_p = options.request.sampling.top_p;
  task.seed = options.seed;
  if (options.given_max_tokens) task.max_tokens = *options.given_max_tokens;
  parse_config("", "--set", options.set, [&](ConfigVisitor& v) { task.visit(v); });
  return task;
}

// --check: the task's items are answered, and the right answers become training data.
void make_traces(Options& options) {
  require(options.prompt.empty(), "molt generate --check: found --prompt, expected the prompts of the task, or of --input FILE");
  require(!options.output.empty(), "molt generate --check: expected --output FILE for what is kept");
  require(options.request.stop.empty() && !options.request.ignore_end,
          "molt generate --check: found --stop or --ignore-end, expected neither: the task says where an answer ends");
  const TaskConfig config = checked_task(options);
  const std::unique_ptr<Task> task = make_task(config);
  const bool generated =
      std::all_of(task->items().begin(), task->items().end(), [](const TaskItem& item) { return item.choices.empty(); });
  require(generated, "molt generate --check: ", config.name, " is answered by likelihood; --form chat generates answers");
  catch_interrupts();
  const fs::path folder = resolve_model_folder(options.model), texts = tokenizer_folder(folder);
  const auto model = load_model(folder, {options.compute.device(), options.compute.dtype()});
  const fs::path samples = options.output + ".samples";
  EvaluateOptions evaluation{.batch = options.batch, .output = samples, .template_folder = texts};
  set_model(evaluation, folder);
  const TaskScore score = evaluate(*model, Tokenizer::load(texts), *task, evaluation);
  const TraceCounts counts = write_traces(*task, samples / "samples.jsonl", options.output);
  const double rate = counts.samples ? static_cast<double>(score.correct) / static_cast<double>(counts.samples) : 0;
  if (options.json) {
    const OrderedJson json{{"samples", counts.samples},   {"wrong", counts.wrong}, {"unfinished", counts.unfinished},
                           {"repeated", counts.repeated}, {"kept", counts.kept},   {"items", counts.items},
                           {"solved", counts.solved},     {"accuracy", rate}};
    std::cout << json.dump(2) << "\n";
  } else {
    std::cout << options.output << ": " << counts.kept << " of " << counted(counts.samples, "sample") << " kept (" << counts.wrong
              << " wrong, " << counts.unfinished << " unfinished, " << counts.repeated << " repeated), for " << counts.solved
              << " of " << counted(counts.items, "prompt") << "\n";
  }
}

void warn_of_equal_samples(const Options& options) {
  if (options.samples > 1 && options.request.sampling.temperature == 0)
    log_warning("--n without --temperature: every sample will be the same");
}

int run(Options& options) {
  if (options.given_max_tokens) options.request.max_tokens = *options.given_max_tokens;
  require(options.request.max_tokens >= 1, "--max-tokens: found ", options.request.max_tokens, ", expected at least 1");
  require(options.samples >= 1, "--n: found ", options.samples, ", expected at least 1");
  require(options.batch >= 1, "--batch: found ", options.batch, ", expected at least 1");
  if (!options.check.empty()) {
    warn_of_equal_samples(options);
    make_traces(options);
    return 0;
  }
  require(options.set.empty() && options.task.limit == 0 && options.task.form == TaskConfig().form,
          "molt generate: found --set, --limit or --form, expected --check with them (molt chat, and \"messages\" in --input, "
          "use the "
          "chat template)");
  const bool from_file = !options.input.empty();
  require(from_file != !options.prompt.empty(), "molt generate: expected either --prompt TEXT or --input FILE");
  require(!from_file || !options.output.empty(), "molt generate --input: expected --output FILE as well");
  require(from_file || options.output.empty(), "molt generate --output: expected --input FILE as well");
  options.request.sampling.seed = static_cast<std::uint64_t>(options.seed);
  check_sampling(options.request.sampling, "molt generate: ");
  warn_of_equal_samples(options);
  catch_interrupts();
  const fs::path folder = resolve_model_folder(options.model);
  const fs::path texts = tokenizer_folder(folder);
  const auto tokenizer = Tokenizer::load(texts);
  const auto model = load_model(folder, {options.compute.device(), options.compute.dtype()});
  if (!from_file) {
    options.request.prompt = options.prompt;
    answer_prompt(options, *model, tokenizer);
    return 0;
  }
  const GenerateFileResult result = generate_file(*model, tokenizer,
                                                  {.input = options.input,
                                                   .output = options.output,
                                                   .request = options.request,
                                                   .samples = options.samples,
                                                   .max_sequences = options.batch,
                                                   .model_folder = texts});
  log_info(concat(options.output, ": ", counted(result.written, "line"), " written, ", counted(result.tokens, "token"),
                  result.found ? concat(", after ", result.found, " that were there") : ""));
  return 0;
}

}  // namespace generate

Command generate_command() {
  return {"generate", "Continue a prompt, or each prompt of a file", [](Arguments& arguments) -> std::function<int()> {
            auto options = std::make_shared<generate::Options>();
            auto& request = options->request;
            arguments.positional("MODEL", options->model, "Hugging Face folder, checkpoint or run");
            arguments.option("--prompt", options->prompt, "Text to continue; the continuation goes to standard output");
            arguments.option("--input", options->input, "JSONL file with a \"prompt\", its \"tokens\" or \"messages\" a line");
            arguments.option("--output", options->output,
                             "JSONL file with a \"completion\" added to each line; continued where it ends");
            arguments.option("--max-tokens", options->given_max_tokens, "New tokens at most [256, or the task's]");
            arguments.option("--temperature", request.sampling.temperature, "0 always takes the most probable token");
            arguments.option("--top-k", request.sampling.top_k, "Only the k most probable tokens, 0 for all");
            arguments.option("--top-p", request.sampling.top_p, "Only the most probable tokens that reach this sum");
            arguments.option("--seed", options->seed, "Another seed gives other texts");
            arguments.option("--stop", request.stop, "Text that ends a completion; may be repeated");
            arguments.flag("--ignore-end", request.ignore_end, "Go on after the token that ends a text");
            arguments.option("--n", options->samples, "Samples of each prompt, a line of output each");
            arguments.option("--check", options->check,
                             "Keep right answers to this task as training data: synthetic, gsm8k, math500, answers (any prompts "
                             "with an \"answer\"), …; --input is the task's file");
            arguments.option("--limit", options->task.limit, "With --check: items at most, 0 for all");
            arguments.choice("--form", options->task.form, {"plain", "chat"},
                             "With --check: plain text, or the model's chat template");
            arguments.option("--set", options->set, "With --check: other settings of the task: instruction=none, …");
            arguments.option("--batch", options->batch, "Sequences generated together");
            arguments.flag("--json", options->json, "Print tokens and log-probabilities too, as JSON");
            options->compute.declare(arguments);
            return [options] { return generate::run(*options); };
          }};
}

}  // namespace molt
