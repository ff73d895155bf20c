#include "evaluate/compare.h"

#include <algorithm>
#include <iomanip>
#include <iostream>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/counted.h"
#include "base/error.h"
#include "base/interrupt.h"
#include "base/progress.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "distill/top_k_bias.h"
#include "formats/hugging_face.h"
#include "formats/peft.h"
#include "formats/safetensors.h"

namespace molt {

namespace compare_models {

struct Options {
  std::string a, b, input;
  bool json = false;
  std::vector<std::int64_t> top_k;
  ComputeOptions compute;
};

void print(const Comparison& comparison) {
  const auto row = [](const std::string& name, const Agreement& part) {
    const auto n = static_cast<double>(std::max<std::int64_t>(part.positions, 1));
    std::cout << std::left << std::setw(14) << name << std::right << std::setw(10) << part.positions << std::scientific
              << std::setprecision(2) << std::setw(12) << part.kl_ab / n << std::setw(12) << part.kl_ba / n << std::fixed
              << std::setprecision(2) << std::setw(11) << 100.0 * static_cast<double>(part.same_top) / n << "%" << std::scientific
              << std::setw(14) << part.largest_difference << "\n";
  };
  std::cout << "position       positions    KL(A|B)     KL(B|A)   same top  largest diff.\n";
  for (const auto& [first, part] : comparison.by_position)
    row(first < 2 ? std::to_string(first) : concat(first, "-", 2 * first - 1), part);
  if (comparison.completions.positions > 0) row("completions", comparison.completions);
  row("all", comparison.all);
}

void print(const TopKReport& report) {
  std::cout << "loss             k   outside       exact   shortened      error   gradient     cosine   ("
            << counted(report.tokens, "token") << ")\n";
  for (const TopKBias& each : report.figures) {
    std::cout << std::left << std::setw(12) << each.loss << std::right << std::setw(6) << each.k << std::scientific
              << std::setprecision(2) << std::setw(10) << each.outside << std::setprecision(4) << std::setw(12) << each.exact
              << std::setw(12) << each.shortened << std::fixed << std::setprecision(3) << std::setw(10) << 100 * each.loss_error()
              << "%" << std::setw(10) << 100 * each.gradient_error << "%" << std::setprecision(6) << std::setw(11) << each.cosine
              << "\n";
  }
}

// About 2,048 tokens a batch; where a line has a completion, the loss is on that.
std::vector<PackedBatch> packed(const std::vector<Sequence>& sequences) {
  constexpr std::int64_t most = 2048;
  std::vector<PackedBatch> batches;
  std::vector<PackedBatch::Sample> samples;
  std::int64_t tokens = 0;
  for (const Sequence& sequence : sequences) {
    const auto length = static_cast<std::int64_t>(sequence.tokens.size());
    if (tokens > 0 && tokens + length > most) {
      batches.push_back(PackedBatch::of(std::exchange(samples, {})));
      tokens = 0;
    }
    PackedBatch::Sample sample{sequence.tokens, std::vector<float>(sequence.tokens.size(), 1.0f)};
    std::fill_n(sample.weights.begin(), sequence.completion, 0.0f);
    samples.push_back(std::move(sample));
    tokens += length;
  }
  batches.push_back(PackedBatch::of(samples));
  return batches;
}

int run(const Options& options) {
  catch_interrupts();
  const LoadOptions load{options.compute.device(), options.compute.dtype()};
  const fs::path folder = resolve_model_folder(options.a);
  const std::shared_ptr<const Model> a = load_model(folder, load);
  const bool stored = fs::path(options.b).extension() == ".safetensors";
  const auto b = stored ? nullptr : load_model(resolve_model_folder(options.b), load);
  const auto logits = stored ? std::optional(SafetensorsFile::open(options.b)) : std::nullopt;
  const std::int64_t vocabulary = a->config().vocabulary;
  require(!b || b->config().vocabulary == vocabulary, options.b, ": vocabulary: found ", b ? b->config().vocabulary : 0,
          ", expected ", vocabulary, " as in ", options.a);
  const fs::path texts = tokenizer_folder(folder);
  const auto tokenizer = fs::exists(texts / "tokenizer.json") ? Tokenizer::load(texts) : nullptr;
  const auto sequences = read_sequences(options.input, tokenizer.get(), vocabulary);

  if (!options.top_k.empty()) {
    require(b != nullptr, "--top-k: found a file of logits as B, expected a model, whose gradients are compared");
    const TopKReport report = top_k_bias(*b, a, packed(sequences), options.top_k);
    options.json ? void(std::cout << report.to_json().dump(2) << "\n") : print(report);
    return 0;
  }

  Comparison comparison;
  Progress progress("compare", static_cast<std::int64_t>(sequences.size()), "sequences");
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    throw_if_interrupted();
    const at::Tensor left = sequence_logits(*a, sequences[i].tokens);
    const at::Tensor right = b ? sequence_logits(*b, sequences[i].tokens) : logits->tensor(std::to_string(i));
    require(right.sizes() == left.sizes(), options.b, ": tensor \"", i, "\": found shape ", right.sizes(), ", expected ",
            left.sizes());
    compare_logits(left, right, comparison, sequences[i].completion);
    progress.update(static_cast<std::int64_t>(i) + 1);
  }
  progress.finish();
  if (options.json)
    std::cout << comparison.to_json().dump(2) << "\n";
  else
    print(comparison);
  return 0;
}

}  // namespace compare_models

Command compare_command() {
  return {"compare", "How far two models' predictions are apart", [](Arguments& arguments) -> std::function<int()> {
            auto options = std::make_shared<compare_models::Options>();
            arguments.positional("A", options->a, "Hugging Face folder, checkpoint or run");
            arguments.positional("B", options->b, "Another one, or a safetensors file of logits (as molt logits writes it)");
            arguments.option("--input", options->input, "JSONL: {\"tokens\": [...]}, or {\"text\": …}, a line", true);
            arguments.option("--top-k", options->top_k,
                             "Instead: what B would learn from A's k largest probabilities, beside all of them: 64,256");
            arguments.flag("--json", options->json, "Print JSON");
            options->compute.declare(arguments);
            return [options] { return compare_models::run(*options); };
          }};
}

}  // namespace molt
