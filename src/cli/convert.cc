#include "base/counted.h"
#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "distill/convert_folder.h"
#include "formats/peft.h"

namespace molt {

namespace convert_command_parts {

std::string layers_are(const std::vector<std::int64_t>& layers) {
  return counted(std::ssize(layers), "layer is", "layers are");
}

}  // namespace convert_command_parts

Command convert_command() {
  return {"convert", "Replace attention layers by Mamba layers, restore them, or merge adapters",
          [](Arguments& arguments) -> std::function<int()> {
            struct Options {
              std::string model, teacher, mixer = "mamba", output;
              std::vector<std::int64_t> layers, restore;
              std::vector<std::string> set;
              std::int64_t seed = 0;
              double shard_size = 5;
            };
            auto options = std::make_shared<Options>();
            arguments.positional("MODEL", options->model, "Hugging Face folder, checkpoint or run; one of adapters is merged");
            arguments.option("--teacher", options->teacher, "Model whose attention weights are taken (default: MODEL itself)");
            arguments.option("--layers", options->layers, "Layers to convert, from 0; none with adapters: they are merged alone");
            arguments.option("--restore", options->restore, "Layers that become the teacher's attention again");
            arguments.choice("--mixer", options->mixer, {"mamba"}, "What they become");
            arguments.option("--set", options->set, "Setting of the mixer: state_size=16, initialisation=aligned, …");
            arguments.option("--seed", options->seed, "Of the weights that attention does not provide");
            arguments.option("--shard-size", options->shard_size, "Largest file of weights, in GB");
            arguments.option("--output", options->output, "Folder to write", true);
            return [options] {
              // The whole folder appears by rename, so whatever lay there would be gone.
              require(!fs::exists(options->output) || fs::is_empty(options->output), "--output: ", options->output,
                      " exists already, expected a new or an empty folder");
              FolderConversion conversion;
              conversion.model = resolve_model_folder(options->model);
              const bool merges = is_adapter_folder(conversion.model);
              require(merges || !options->layers.empty() || !options->restore.empty(),
                      "--layers: expected at least one layer, such as 3,5,7");
              require(options->restore.empty() || !options->teacher.empty(),
                      "--restore: expected --teacher beside it, the model whose attention comes back");
              if (!options->teacher.empty()) conversion.teacher = resolve_model_folder(options->teacher);
              conversion.layers = options->layers;
              conversion.restore = options->restore;
              conversion.target = TargetMixerConfig::of(options->mixer);
              parse_config("", "--set", options->set, [&](ConfigVisitor& v) { conversion.target.settings->visit(v); });
              conversion.seed = static_cast<std::uint64_t>(options->seed);
              conversion.place = "--layers";
              conversion.restore_place = "--restore";
              conversion.output = options->output;
              conversion.options.max_shard_bytes = shard_bytes(options->shard_size, "--shard-size");
              catch_interrupts();
              convert_folder(conversion);
              if (merges) log_info(concat(options->output, ": the adapters are merged into whole weights"));
              if (!options->restore.empty()) {
                log_info(concat(options->output, ": ", convert_command_parts::layers_are(options->restore), " attention again"));
              }
              if (!options->layers.empty()) {
                log_info(concat(options->output, ": ", convert_command_parts::layers_are(options->layers), " ", options->mixer));
              }
              return 0;
            };
          }};
}

}  // namespace molt
