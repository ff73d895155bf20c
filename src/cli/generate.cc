#include <iostream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/json.h"
#include "base/log.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "formats/hugging_face.h"
#include "formats/peft.h"
#include "infer/generate_file.h"
#include "infer/text_generation.h"

namespace molt {
namespace generate {

struct Options {
  std::string model, prompt, input, output;
  TextRequest request;
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

int run(Options& options) {
  const bool from_file = !options.input.empty();
  require(from_file != !options.prompt.empty(), "molt generate: expected either --prompt TEXT or --input FILE");
  require(!from_file || !options.output.empty(), "molt generate --input: expected --output FILE as well");
  require(from_file || options.output.empty(), "molt generate --output: expected --input FILE as well");
  require(options.samples >= 1, "--n: found ", options.samples, ", expected at least 1");
  require(options.batch >= 1, "--batch: found ", options.batch, ", expected at least 1");
  options.request.sampling.seed = static_cast<std::uint64_t>(options.seed);
  check_sampling(options.request.sampling, "molt generate: ");
  if (options.samples > 1 && options.request.sampling.temperature == 0) {
    log_warning("--n without --temperature: every sample will be the same");
  }
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
  log_info(concat(options.output, ": ", result.written, " lines written, ", result.tokens, " tokens",
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
            arguments.option("--max-tokens", request.max_tokens, "New tokens at most");
            arguments.option("--temperature", request.sampling.temperature, "0 always takes the most probable token");
            arguments.option("--top-k", request.sampling.top_k, "Only the k most probable tokens, 0 for all");
            arguments.option("--top-p", request.sampling.top_p, "Only the most probable tokens that reach this sum");
            arguments.option("--seed", options->seed, "Another seed gives other texts");
            arguments.option("--stop", request.stop, "Text that ends a completion; may be repeated");
            arguments.flag("--ignore-end", request.ignore_end, "Go on after the token that ends a text");
            arguments.option("--n", options->samples, "Samples of each prompt, a line of output each");
            arguments.option("--batch", options->batch, "Sequences generated together");
            arguments.flag("--json", options->json, "Print tokens and log-probabilities too, as JSON");
            options->compute.declare(arguments);
            return [options] { return generate::run(*options); };
          }};
}

}  // namespace molt
