#include "data/prepare.h"

#include <iostream>

#include "base/counted.h"
#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/progress.h"
#include "cli/commands.h"
#include "cli/configuration_file.h"
#include "cli/options.h"

namespace molt {

namespace prepare_command_parts {

void log_result(const PrepareConfig& config, const PrepareResult& result) {
  log_info(concat(counted(result.samples, "sample"), ", ", human_count(static_cast<double>(result.tokens)), " tokens (",
                  human_count(static_cast<double>(result.loss_tokens)), " to learn from) in ", config.output));
  if (result.dropped) log_info(concat(counted(result.dropped, "sample"), " dropped: longer than max_length or empty"));
  if (result.shortened) log_info(concat(counted(result.shortened, "sample"), " longer than max_length: ", config.long_samples));
  if (result.malformed) log_warning(concat(counted(result.malformed, "malformed line"), " skipped"));
}

}  // namespace prepare_command_parts

Command prepare_command() {
  return {
      "prepare", "Tokenize JSONL or Parquet into shards that training maps", [](Arguments& arguments) -> std::function<int()> {
        struct Options {
          std::string config;
          std::vector<std::string> set, input;
          std::string tokenizer, output;
          std::int64_t threads = 0;
        };
        auto options = std::make_shared<Options>();
        arguments.positional("CONFIG", options->config, "YAML file (molt config prepare shows what it may say)", false);
        arguments.option("--set", options->set, "Override a key of the configuration: key=value");
        arguments.option("--input", options->input,
                         "JSONL or Parquet with \"text\", \"prompt\" and \"completion\", \"messages\" or \"tokens\"");
        arguments.option("--tokenizer", options->tokenizer, "Folder with tokenizer.json, such as the model");
        arguments.option("--output", options->output, "Folder to write");
        arguments.option("--threads", options->threads, "CPU threads, 0 for every core");
        return [options] {
          PrepareConfig config;
          check_configuration_file(
              options->config, ConfigurationKind::preparation,
              {.data =
                   concat("data goes to --input: molt prepare --input ", options->config, " --tokenizer MODEL --output FOLDER"),
               .model = "data goes to --input and a model to --tokenizer: molt prepare --input FILE --tokenizer MODEL "
                        "--output FOLDER"});
          const ConfigVisitor::Visit visit = [&](ConfigVisitor& v) { config.visit(v); };
          if (!options->config.empty())
            read_config(options->config, options->set, visit);
          else
            parse_config("", "--set", options->set, visit);
          if (!options->input.empty()) config.input = options->input;
          if (!options->tokenizer.empty()) config.tokenizer = options->tokenizer;
          if (!options->output.empty()) config.output = options->output;
          set_threads(options->threads);
          catch_interrupts();
          prepare_command_parts::log_result(config, prepare(config));
          return 0;
        };
      }};
}

}  // namespace molt
