#include "base/counted.h"
#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/progress.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "distill/write_logits.h"
#include "evaluate/compare.h"
#include "formats/hugging_face.h"
#include "formats/peft.h"

namespace molt {

namespace logits_command_parts {

struct Options {
  std::string model, input, data, output;
  std::int64_t top_k = 0;
  WriteLogitsOptions top;
  ComputeOptions compute;
};

void check(const Options& options) {
  require(options.input.empty() != options.data.empty(), "--input: expected exactly one of --input and --data");
  require(options.data.empty() || options.top_k > 0,
          "--data: expected --top-k N beside it, how many logits of a token to keep; all of them are written for --input alone");
  if (!options.data.empty()) return;
  require(options.top_k == 0,
          "--top-k: found --input, expected --data: what is distilled from lies by the samples of a data set, which molt prepare "
          "makes of a file (molt compare --top-k says of a file what so many logits leave out)");
  const WriteLogitsOptions defaults;
  require(options.top.temperature == defaults.temperature, "--temperature: found --input, expected --data and --top-k");
  require(options.top.batch_tokens == defaults.batch_tokens, "--batch-tokens: found --input, expected --data and --top-k");
}

int run(const Options& options) {
  check(options);
  catch_interrupts();
  const fs::path folder = resolve_model_folder(options.model);
  const auto model = load_model(folder, {options.compute.device(), options.compute.dtype()});
  const fs::path texts = tokenizer_folder(folder);
  const auto tokenizer = fs::exists(texts / "tokenizer.json") ? Tokenizer::load(texts) : nullptr;
  if (!options.data.empty()) {
    WriteLogitsOptions top = options.top;
    top.k = options.top_k;
    const LogitsManifest written = write_top_logits(*model, tokenizer.get(), options.data, options.output, top);
    log_info(concat(options.output, ": ", counted(written.k, "logit"), " each of ", counted(written.rows, "token"), " of ",
                    counted(written.samples, "sample"), ", ",
                    human_bytes(static_cast<double>(written.rows * written.row_bytes()))));
    return 0;
  }
  const auto sequences = read_sequences(options.input, tokenizer.get(), model->config().vocabulary);
  write_logits(*model, sequences, options.output);
  log_info(concat(options.output, ": logits of ", counted(std::ssize(sequences), "sequence")));
  return 0;
}

}  // namespace logits_command_parts

Command logits_command() {
  return {"logits", "Write a model's logits for given tokens", [](Arguments& arguments) -> std::function<int()> {
            auto options = std::make_shared<logits_command_parts::Options>();
            arguments.positional("MODEL", options->model, "Hugging Face folder, checkpoint or run");
            arguments.option("--input", options->input, "JSONL: {\"tokens\": [...]}, or {\"text\": …}, a line");
            arguments.option("--data", options->data, "In its place: a folder of molt prepare, with --top-k");
            arguments.option("--output", options->output,
                             "safetensors file: tensors \"0\", \"1\", … (tokens, vocabulary) fp32; with --top-k a folder, "
                             "continued where it was stopped",
                             true);
            arguments.option("--top-k", options->top_k, "Only the k largest of each learned token, to distil from");
            arguments.option("--temperature", options->top.temperature, "Of the distillation, with --top-k");
            arguments.option("--batch-tokens", options->top.batch_tokens, "Tokens of a forward pass, with --top-k");
            options->compute.declare(arguments);
            return [options] { return logits_command_parts::run(*options); };
          }};
}

}  // namespace molt
