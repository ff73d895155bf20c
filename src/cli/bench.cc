#include <charconv>
#include <iomanip>
#include <iostream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/json.h"
#include "base/progress.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "formats/config_json.h"
#include "formats/hugging_face.h"
#include "infer/throughput.h"
#include "model/random_model.h"

namespace molt {
namespace bench_models {

struct Options {
  std::vector<std::string> models;
  std::string batches = "1,8";
  ThroughputOptions throughput;
  bool random = false, json = false;
  ComputeOptions compute;
};

const char* word(ThroughputRow::Work work) {
  return work == ThroughputRow::Work::prefill ? "prefill" : work == ThroughputRow::Work::decode ? "decode" : "requests";
}

// "1,32,max"
std::vector<std::int64_t> parse_batches(const std::string& text) {
  std::vector<std::int64_t> batches;
  std::istringstream words(text);
  for (std::string entry; std::getline(words, entry, ',');) {
    std::int64_t batch = 0;
    const auto [end, error] = std::from_chars(entry.data(), entry.data() + entry.size(), batch);
    const bool number = error == std::errc() && end == entry.data() + entry.size() && batch >= 1;
    require(number || entry == "max", "--batch: found \"", entry, "\", expected numbers of sequences, or max");
    batches.push_back(number ? batch : ThroughputOptions::kLargest);
  }
  return batches;
}

// A config.json, or a folder that holds one.
ModelConfig config_of(const fs::path& place) {
  const fs::path file = fs::is_directory(place) ? place / "config.json" : place;
  return parse_model_config(read_json(file), file.string());
}

void print_json(const Options& options, const std::vector<ThroughputRow>& rows) {
  OrderedJson all = OrderedJson::array();
  for (const ThroughputRow& row : rows) {
    all.push_back({{"model", options.models[static_cast<std::size_t>(row.model)]},
                   {"work", word(row.work)},
                   {"context", row.context},
                   {"batch", row.batch},
                   {"tokens_per_second", row.median},
                   {"lowest", row.lowest},
                   {"highest", row.highest},
                   {"ratio", row.ratio},
                   {"cache_bytes", row.cache_bytes}});
  }
  std::cout << all.dump(2) << "\n";
}

void print_table(const Options& options, const std::vector<ThroughputRow>& rows) {
  for (std::size_t i = 0; i < options.models.size(); ++i) std::cout << i + 1 << "  " << options.models[i] << "\n";
  std::cout << "\nwork      context  batch  model     tokens/s     lowest    highest   ratio      cache\n";
  for (const ThroughputRow& row : rows) {
    std::cout << std::left << std::setw(9) << word(row.work) << std::right << std::setw(8) << row.context << std::setw(7)
              << row.batch << std::setw(7) << row.model + 1 << std::fixed << std::setprecision(row.median < 100 ? 1 : 0)
              << std::setw(13) << row.median << std::setw(11) << row.lowest << std::setw(11) << row.highest
              << std::setprecision(2) << std::setw(8) << row.ratio << std::setw(11)
              << human_bytes(static_cast<double>(row.cache_bytes)) << "\n";
  }
}

int run(Options& options) {
  options.throughput.batches = parse_batches(options.batches);
  catch_interrupts();
  std::vector<std::unique_ptr<Model>> models;
  std::vector<const Model*> given;
  for (const std::string& name : options.models) {
    const at::Device device = options.compute.device();
    const at::ScalarType dtype = options.compute.dtype();
    models.push_back(options.random ? random_model(config_of(name), device, dtype, options.throughput.seed, given)
                                    : load_model(resolve_model_folder(name), {device, dtype}));
    given.push_back(models.back().get());
  }
  std::unique_ptr<Progress> progress;
  const auto rows = measure_throughput(given, options.throughput, [&](std::int64_t done, std::int64_t total) {
    if (!progress) progress = std::make_unique<Progress>("bench", total, "runs");
    progress->update(done);
  });
  progress.reset();
  options.json ? print_json(options, rows) : print_table(options, rows);
  return 0;
}

}  // namespace bench_models

Command bench_command() {
  return {"bench", "Measure how fast models read prompts and generate", [](Arguments& arguments) -> std::function<int()> {
            auto options = std::make_shared<bench_models::Options>();
            auto& throughput = options->throughput;
            arguments.positional("MODEL", options->models, "Hugging Face folders, checkpoints or runs; ratios are to the first");
            arguments.flag("--random", options->random, "Random weights: MODEL is a config.json, or a folder with one");
            arguments.option("--batch", options->batches, "Sequences decoded together, and max for as many as a GPU holds");
            arguments.option("--context", throughput.contexts, "Tokens that each sequence has already");
            arguments.option("--tokens", throughput.tokens, "Tokens decoded by each sequence in a run");
            arguments.option("--requests", throughput.requests, "Instead: requests of one token, answered by --tokens each");
            arguments.option("--runs", throughput.runs, "Times that each model takes its turn; medians are shown");
            arguments.flag("--json", options->json, "Print JSON");
            options->compute.declare(arguments);
            return [options] { return bench_models::run(*options); };
          }};
}

}  // namespace molt
