#include <iomanip>
#include <iostream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/json.h"
#include "base/progress.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "formats/hugging_face.h"
#include "infer/throughput.h"

namespace molt {
namespace bench_models {

struct Options {
  std::vector<std::string> models;
  ThroughputOptions throughput;
  bool json = false;
  ComputeOptions compute;
};

void print_json(const Options& options, const std::vector<ThroughputRow>& rows) {
  OrderedJson all = OrderedJson::array();
  for (const ThroughputRow& row : rows) {
    all.push_back({{"model", options.models[static_cast<std::size_t>(row.model)]},
                   {"work", row.prefill ? "prefill" : "decode"},
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
  std::cout << "\nwork     context  batch  model     tokens/s     lowest    highest   ratio      cache\n";
  for (const ThroughputRow& row : rows) {
    std::cout << std::left << std::setw(8) << (row.prefill ? "prefill" : "decode") << std::right << std::setw(8) << row.context
              << std::setw(7) << row.batch << std::setw(7) << row.model + 1 << std::fixed
              << std::setprecision(row.median < 100 ? 1 : 0) << std::setw(13) << row.median << std::setw(11) << row.lowest
              << std::setw(11) << row.highest << std::setprecision(2) << std::setw(8) << row.ratio << std::setw(11)
              << human_bytes(static_cast<double>(row.cache_bytes)) << "\n";
  }
}

int run(Options& options) {
  catch_interrupts();
  std::vector<std::unique_ptr<Model>> models;
  std::vector<const Model*> given;
  for (const std::string& name : options.models) {
    models.push_back(load_model(resolve_model_folder(name), {options.compute.device(), options.compute.dtype()}));
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
            arguments.option("--batch", throughput.batches, "Sequences decoded together");
            arguments.option("--context", throughput.contexts, "Tokens that each sequence has already");
            arguments.option("--tokens", throughput.tokens, "Tokens decoded by each sequence in a run");
            arguments.option("--runs", throughput.runs, "Times that each model takes its turn; medians are shown");
            arguments.flag("--json", options->json, "Print JSON");
            options->compute.declare(arguments);
            return [options] { return bench_models::run(*options); };
          }};
}

}  // namespace molt
