#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>
#include <set>

#include "base/counted.h"
#include "base/error.h"
#include "base/json.h"
#include "base/progress.h"
#include "base/text_table.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "cli/show_batch.h"
#include "distill/costs.h"
#include "distill/layout_strip.h"
#include "formats/hugging_face.h"
#include "formats/peft.h"
#include "formats/stored_model.h"

namespace molt {
namespace inspect_model {

struct Options {
  std::string model, dtype = "auto", batch;
  std::optional<std::int64_t> step;
  std::vector<std::int64_t> mamba;
  std::vector<std::string> set;
  std::int64_t context = 16384;
  double memory = 80, bandwidth = 3350, tflops = 989;
  bool json = false;

  Hardware hardware() const { return {memory * 1e9, bandwidth * 1e9, tflops * 1e12}; }
};

// A model and, in the following ones, what it would be with more Mamba layers.
struct Variant {
  std::string title;
  ModelCosts costs;
  std::vector<DecodeCosts> decode;  // one sequence, and as many as fit
};

// What holds the weights, if they are there (and then they are checked), or what config.json says of them.
std::string stored_word(const fs::path& folder) {
  if (is_adapter_folder(folder) || fs::exists(folder / "model.safetensors") ||
      fs::exists(folder / "model.safetensors.index.json")) {
    return dtype_word(StoredModel::open(folder).dtype());
  }
  const fs::path path = folder / "config.json";
  const Json config = read_json(path);
  const char* key = config.contains("dtype") ? "dtype" : "torch_dtype";
  return get_or<std::string>(config, key, "bfloat16", path.string());
}

at::ScalarType dtype_of(const std::string& word, const std::string& place) {
  if (word == "float32") return at::kFloat;
  if (word == "float16") return at::kHalf;
  require(word == "bfloat16", place, ": dtype: found \"", word, "\", expected float32, bfloat16 or float16; --dtype chooses one");
  return at::kBFloat16;
}

std::vector<Variant> variants_of(const Options& options, const ModelConfig& config, at::ScalarType dtype) {
  std::vector<Variant> variants = {{"as it is", model_costs(config, dtype, options.context), {}}};
  TargetMixerConfig target = TargetMixerConfig::of("mamba");
  parse_config("", "--set", options.set, [&](ConfigVisitor& v) { target.settings->visit(v); });
  for (const std::int64_t layers : options.mamba) {
    variants.push_back({concat(layers, " Mamba"),
                        model_costs(with_mamba_layers(config, layers, target, "--mamba"), dtype, options.context),
                        {}});
  }
  for (Variant& variant : variants) {
    for (const std::int64_t batch : {std::int64_t{1}, largest_batch(variant.costs, options.hardware())}) {
      variant.decode.push_back(decode_costs(variant.costs, options.hardware(), std::max<std::int64_t>(batch, 1)));
    }
  }
  return variants;
}

using Row = std::vector<std::string>;

void add_row(std::vector<Row>& rows, const std::vector<Variant>& variants, const std::string& title,
             const std::function<std::string(const Variant&)>& cell) {
  Row row = {title};
  for (const Variant& variant : variants) row.push_back(cell(variant));
  rows.push_back(std::move(row));
}

std::string costs_table(const Options& options, const std::vector<Variant>& variants) {
  std::vector<Row> rows;
  const auto row = [&](const std::string& title, const std::function<std::string(const Variant&)>& cell) {
    add_row(rows, variants, title, cell);
  };
  std::set<std::string> parts;
  for (const Variant& variant : variants) {
    for (const auto& [part, count] : variant.costs.parts) parts.insert(part);
  }
  const Hardware hardware = options.hardware();
  const std::string at_context = grouped_text(static_cast<double>(options.context)) + " tokens";
  row("", [](const Variant& v) { return v.title; });
  row("parameters", [](const Variant& v) {
    return v.costs.parameters < 1e9 ? human_count(v.costs.parameters) : fixed_text(v.costs.parameters / 1e9, 3) + " B";
  });
  for (const std::string& part : parts) {
    row("  " + part,
        [&](const Variant& v) { return v.costs.parts.contains(part) ? grouped_text(v.costs.parts.at(part)) : std::string("-"); });
  }
  row("weights", [](const Variant& v) { return human_bytes(v.costs.weight_bytes); });
  row("cache a token", [](const Variant& v) { return grouped_text(v.costs.cache_token_bytes) + " B"; });
  row("states a sequence", [](const Variant& v) { return grouped_text(v.costs.state_bytes) + " B"; });
  row("a sequence of " + at_context, [](const Variant& v) { return human_bytes(v.costs.sequence_bytes()); });
  row("FLOPs a token after " + at_context, [](const Variant& v) { return human_count(v.costs.token_flops); });
  row("largest batch in " + fixed_text(options.memory, 0) + " GB",
      [&](const Variant& v) { return grouped_text(static_cast<double>(largest_batch(v.costs, hardware))); });
  for (const std::size_t i : {0, 1}) {
    const auto title = i == 0 ? "decode one sequence, tokens/s" : "decode the largest batch, tokens/s";
    row(title, [&](const Variant& v) {
      return i == 1 && largest_batch(v.costs, hardware) == 0 ? "-" : grouped_text(v.decode[i].tokens_per_second);
    });
    row("  bound by", [&](const Variant& v) { return v.decode[i].bound; });
    row("  speed-up", [&](const Variant& v) {
      return "x " + fixed_text(v.decode[i].tokens_per_second / variants[0].decode[i].tokens_per_second, 2);
    });
  }
  return text_table(rows);
}

void print_text(const Options& options, const std::vector<Variant>& variants, at::ScalarType dtype) {
  const ModelConfig& config = variants[0].costs.config;
  Model model(config);
  std::cout << options.model << ": " << counted(config.num_layers(), "layer") << " of hidden size " << config.hidden_size
            << " in " << dtype_word(dtype) << "\n"
            << layout_legend << "\n";
  std::vector<Row> strips, shapes;
  for (const Variant& variant : variants) strips.push_back({variant.title, layout_strip(variant.costs.config.layout())});
  for (const ParameterShape& row : parameter_shapes(model)) {
    std::string sizes;
    for (const std::int64_t size : row.shape) sizes += concat(sizes.empty() ? "" : " x ", size);
    shapes.push_back({row.name, row.count > 1 ? concat(row.count, " x") : "", sizes});
  }
  std::cout << text_table(strips) << "\n" << text_table(shapes) << "\n" << costs_table(options, variants);
  std::cout << "\nBy arithmetic alone, for " << fixed_text(options.memory, 0) << " GB of memory at "
            << fixed_text(options.bandwidth, 0) << " GB/s and " << fixed_text(options.tflops, 0) << " TFLOP/s.\n";
}

OrderedJson json_of(const Variant& variant, const Variant& first, const Hardware& hardware) {
  const ModelCosts& costs = variant.costs;
  OrderedJson entry = {{"layout", costs.config.layout()},
                       {"parameters", costs.parameters},
                       {"parts", costs.parts},
                       {"weight_bytes", costs.weight_bytes},
                       {"cache_bytes_per_token", costs.cache_token_bytes},
                       {"state_bytes_per_sequence", costs.state_bytes},
                       {"sequence_bytes", costs.sequence_bytes()},
                       {"flops_per_token", costs.token_flops},
                       {"largest_batch", largest_batch(costs, hardware)},
                       {"decode", OrderedJson::array()}};
  for (std::size_t i = 0; i < variant.decode.size(); ++i) {
    const DecodeCosts& decode = variant.decode[i];
    entry["decode"].push_back({{"batch", decode.batch},
                               {"tokens_per_second", decode.tokens_per_second},
                               {"bound", decode.bound},
                               {"speed_up", decode.tokens_per_second / first.decode[i].tokens_per_second}});
  }
  return entry;
}

void print_json(const Options& options, const std::vector<Variant>& variants, const std::string& dtype) {
  const ModelConfig& config = variants[0].costs.config;
  Model model(config);
  OrderedJson all = {{"model", options.model},
                     {"dtype", dtype},
                     {"hidden_size", config.hidden_size},
                     {"vocabulary", config.vocabulary},
                     {"context", options.context},
                     {"memory", options.memory * 1e9},
                     {"bandwidth", options.bandwidth * 1e9},
                     {"flops", options.tflops * 1e12},
                     {"shapes", OrderedJson::array()},
                     {"variants", OrderedJson::array()}};
  for (const ParameterShape& row : parameter_shapes(model)) {
    all["shapes"].push_back({{"name", row.name}, {"shape", row.shape}, {"count", row.count}});
  }
  for (const Variant& variant : variants) all["variants"].push_back(json_of(variant, variants[0], options.hardware()));
  std::cout << all.dump(2) << "\n";
}

int run(const Options& options) {
  require(options.context > 0, "--context: found ", options.context, ", expected at least 1");
  for (const auto& [name, value] : {std::pair("--memory", options.memory), std::pair("--bandwidth", options.bandwidth),
                                    std::pair("--tflops", options.tflops)}) {
    require(value > 0, name, ": found ", value, ", expected a positive number");
  }
  const fs::path folder = resolve_model_folder(options.model);
  require(!options.step || !options.batch.empty(), "--step: expected --batch beside it");
  if (!options.batch.empty()) {
    show_batch(folder, options.batch, options.step.value_or(1));
    return 0;
  }
  const ModelConfig config = read_model_config(folder);
  const std::string word = options.dtype == "auto" ? stored_word(folder) : options.dtype;
  const at::ScalarType dtype = dtype_of(word, (folder / "config.json").string());
  const std::vector<Variant> variants = variants_of(options, config, dtype);
  options.json ? print_json(options, variants, word) : print_text(options, variants, dtype);
  return 0;
}

}  // namespace inspect_model

Command inspect_command() {
  return {"inspect", "Show what a model is made of and costs, or a batch it learns from",
          [](Arguments& arguments) -> std::function<int()> {
            auto options = std::make_shared<inspect_model::Options>();
            arguments.positional("MODEL", options->model, "Hugging Face folder, checkpoint or run; config.json will do");
            arguments.option("--mamba", options->mamba, "Also with so many Mamba layers: 25,30,40");
            arguments.option("--set", options->set, "Setting of those layers: state_size=16, …");
            arguments.option("--context", options->context, "Tokens in each sequence");
            arguments.choice("--dtype", options->dtype, {"auto", "float32", "bfloat16", "float16"},
                             "Of weights and cache (auto: as config.json says)");
            arguments.option("--memory", options->memory, "Of the GPU, in GB; the defaults are an H100's");
            arguments.option("--bandwidth", options->bandwidth, "Of its memory, in GB/s");
            arguments.option("--tflops", options->tflops, "Of its matrix products, in TFLOP/s");
            arguments.option("--batch", options->batch,
                             "Instead, show the tokens of a batch with their loss weights: of a training's CONFIG, a folder of "
                             "token shards, or a file that a run's guard saved");
            arguments.option("--step", options->step, "The step whose batch that is, from 1 [1]");
            arguments.flag("--json", options->json, "Print JSON");
            return [options] { return inspect_model::run(*options); };
          }};
}

}  // namespace molt
