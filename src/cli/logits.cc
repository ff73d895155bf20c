#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "evaluate/compare.h"
#include "formats/hugging_face.h"
#include "formats/peft.h"

namespace molt {

Command logits_command() {
  return {"logits", "Write a model's logits for given tokens", [](Arguments& arguments) -> std::function<int()> {
            struct Options {
              std::string model, input, output;
              ComputeOptions compute;
            };
            auto options = std::make_shared<Options>();
            arguments.positional("MODEL", options->model, "Hugging Face folder, checkpoint or run");
            arguments.option("--input", options->input, "JSONL: {\"tokens\": [...]}, or {\"text\": …}, a line", true);
            arguments.option("--output", options->output, "safetensors file: tensors \"0\", \"1\", … (tokens, vocabulary) fp32",
                             true);
            options->compute.declare(arguments);
            return [options] {
              catch_interrupts();
              const fs::path folder = resolve_model_folder(options->model);
              const auto model = load_model(folder, {options->compute.device(), options->compute.dtype()});
              const fs::path texts = tokenizer_folder(folder);
              const auto tokenizer = fs::exists(texts / "tokenizer.json") ? Tokenizer::load(texts) : nullptr;
              const auto sequences = read_sequences(options->input, tokenizer.get(), model->config().vocabulary);
              write_logits(*model, sequences, options->output);
              log_info(concat(options->output, ": logits of ", sequences.size(), " sequences"));
              return 0;
            };
          }};
}

}  // namespace molt
