#include "distill/convert.h"

#include "base/error.h"
#include "base/log.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "formats/hugging_face.h"

namespace molt {

Command convert_command() {
  return {"convert", "Replace attention layers by Mamba layers, untrained", [](Arguments& arguments) -> std::function<int()> {
            struct Options {
              std::string model, teacher, mixer = "mamba", output;
              std::vector<std::int64_t> layers;
              std::vector<std::string> set;
              std::int64_t seed = 0;
            };
            auto options = std::make_shared<Options>();
            arguments.positional("MODEL", options->model, "Hugging Face folder, checkpoint or run");
            arguments.option("--teacher", options->teacher, "Model whose attention weights are taken (default: MODEL itself)");
            arguments.option("--layers", options->layers, "Layers to convert, from 0");
            arguments.choice("--mixer", options->mixer, {"mamba"}, "What they become");
            arguments.option("--set", options->set, "Setting of the mixer: state_size=16, initialisation=aligned, …");
            arguments.option("--seed", options->seed, "Of the weights that attention does not provide");
            arguments.option("--output", options->output, "Folder to write", true);
            return [options] {
              // The whole folder appears by rename, so whatever lay there would be gone.
              require(!fs::exists(options->output) || fs::is_empty(options->output), "--output: ", options->output,
                      " exists already, expected a new or an empty folder");
              require(!options->layers.empty(), "--layers: expected at least one layer, such as 3,5,7");
              TargetMixerConfig target = TargetMixerConfig::of(options->mixer);
              parse_config("", "--set", options->set, [&](ConfigVisitor& v) { target.settings->visit(v); });
              const fs::path folder = resolve_model_folder(options->model);
              LoadOptions load;
              load.dtype = stored_dtype(folder);
              const auto student = load_model(folder, load);
              const auto teacher =
                  options->teacher.empty() ? student->share() : load_model(resolve_model_folder(options->teacher), load);
              convert_layers(*student, *teacher, options->layers, target, static_cast<std::uint64_t>(options->seed), "--layers");
              ExportOptions export_options;
              export_options.like = folder;
              export_model(*student, options->output, export_options);
              log_info(concat(options->output, ": ", options->layers.size(), " of ", student->config().num_layers(),
                              " layers are ", options->mixer));
              return 0;
            };
          }};
}

}  // namespace molt
