#include "evaluate/perplexity.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <numbers>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/progress.h"
#include "evaluate/sample_file.h"
#include "ops/linear_loss/linear_loss.h"

namespace molt {

double Perplexity::loss() const {
  return tokens ? nats / static_cast<double>(tokens) : 0;
}
double Perplexity::perplexity() const {
  return std::exp(loss());
}
double Perplexity::bits_per_byte() const {
  return bytes ? nats / std::numbers::ln2 / static_cast<double>(bytes) : 0;
}

OrderedJson Perplexity::to_json() const {
  return {{"task", "perplexity"},
          {"perplexity", perplexity()},
          {"bits_per_byte", bits_per_byte()},
          {"loss", loss()},
          {"standard_error", standard_error},
          {"tokens", tokens},
          {"bytes", bytes},
          {"texts", texts}};
}

namespace perplexities {

std::vector<std::string> read_texts(const fs::path& file, std::int64_t limit) {
  std::vector<std::string> texts;
  if (file.extension() != ".jsonl") return {read_file(file)};
  LineReader reader(file);
  for (std::string_view line; (limit == 0 || std::ssize(texts) < limit) && reader.next(line);) {
    if (line.empty()) continue;
    texts.push_back(get<std::string>(parse_json(line, reader.place()), "text", reader.place()));
  }
  return texts;
}

// The windows of one text: loss weights are 1 where a token is predicted for the first time.
void add_windows(const std::vector<std::int32_t>& tokens, std::int64_t window, std::int64_t stride,
                 std::vector<PackedBatch::Sample>& windows) {
  const auto count = std::ssize(tokens);
  for (std::int64_t begin = 0, known = 0; known < count; begin += stride) {
    const std::int64_t end = std::min(begin + window, count);
    PackedBatch::Sample sample{{tokens.begin() + begin, tokens.begin() + end}, {}};
    for (std::int64_t i = begin; i < end; ++i) sample.weights.push_back(i < known ? 0.0f : 1.0f);
    known = end;
    if (end - begin > 1) windows.push_back(std::move(sample));
  }
}

// Negative log-probability and number of predicted tokens of a window.
struct Figures {
  double nats = 0, tokens = 0;
};

std::vector<Figures> figures_of(const Model& model, const std::vector<PackedBatch::Sample>& windows) {
  const PackedBatch batch = PackedBatch::of(windows).to(model.device());
  const at::Tensor logs = ops::log_probs(model.forward(batch), model.head_weight(), batch.targets) * batch.loss_weights;
  const at::Tensor losses = at::stack({-logs.to(at::kDouble), batch.loss_weights.to(at::kDouble)}).cpu();
  std::vector<Figures> figures;
  for (std::int64_t i = 0; i < batch.sequences.count(); ++i) {
    const auto at = static_cast<std::size_t>(i);
    const at::Tensor sum = losses.slice(1, batch.sequences.offsets[at], batch.sequences.offsets[at + 1]).sum(1);
    figures.push_back({sum[0].item<double>(), sum[1].item<double>()});
  }
  return figures;
}

using Pack = std::vector<PackedBatch::Sample>;

std::vector<Pack> packs_of(std::vector<PackedBatch::Sample> windows) {
  constexpr std::int64_t most = 8192;  // tokens
  std::vector<Pack> packs;
  std::int64_t tokens = most;
  for (PackedBatch::Sample& window : windows) {
    const std::int64_t own = std::ssize(window.tokens);
    if (tokens + own > most || packs.empty()) packs.emplace_back(), tokens = 0;
    tokens += own;
    packs.back().push_back(std::move(window));
  }
  return packs;
}

// The packs that are known from an earlier call, by number.
std::map<std::size_t, std::vector<Figures>> read_figures(const fs::path& path, const std::vector<Pack>& packs) {
  std::map<std::size_t, std::vector<Figures>> known;
  LineReader reader(path);
  for (std::string_view line; reader.next(line);) {
    const Json entry = parse_json(line, reader.place());
    const auto pack = get<std::int64_t>(entry, "pack", reader.place());
    const auto nats = get<std::vector<double>>(entry, "nats", reader.place());
    const auto tokens = get<std::vector<double>>(entry, "tokens", reader.place());
    const bool fits = pack >= 0 && pack < std::ssize(packs) && nats.size() == tokens.size() &&
                      nats.size() == packs[static_cast<std::size_t>(pack)].size();
    require(fits, reader.place(), ": found figures of other windows than those of this text");
    std::vector<Figures>& figures = known[static_cast<std::size_t>(pack)];
    figures.clear();
    for (std::size_t i = 0; i < nats.size(); ++i) figures.push_back({nats[i], tokens[i]});
  }
  return known;
}

// Of every window, in order.
std::vector<Figures> measure(const Model& model, const std::vector<Pack>& packs, const PerplexityOptions& options) {
  std::map<std::size_t, std::vector<Figures>> known;
  std::unique_ptr<LineWriter> writer;
  if (!options.output.empty()) {
    const fs::path path = options.output / "windows.jsonl";
    writer = std::make_unique<LineWriter>(path);
    known = read_figures(path, packs);
  }
  std::vector<Figures> all;
  Progress progress("perplexity", std::ssize(packs), "packs of text");
  for (std::size_t i = 0; i < packs.size(); ++i) {
    throw_if_interrupted();
    if (!known.contains(i)) {
      known[i] = figures_of(model, packs[i]);
      OrderedJson nats = OrderedJson::array(), tokens = OrderedJson::array();
      for (const Figures& window : known[i]) nats.push_back(window.nats), tokens.push_back(window.tokens);
      if (writer) writer->append(to_line(OrderedJson{{"pack", i}, {"nats", nats}, {"tokens", tokens}}));
    }
    all.insert(all.end(), known[i].begin(), known[i].end());
    progress.update(static_cast<std::int64_t>(i) + 1);
  }
  return all;
}

}  // namespace perplexities

Perplexity measure_perplexity(const Model& model, const Tokenizer& tokenizer, const fs::path& file,
                              const PerplexityOptions& options) {
  constexpr std::int64_t longest = 2048;
  const c10::InferenceMode no_gradients;
  require(!file.empty(), "task perplexity: data: expected a file of text");
  const std::int64_t context = model.config().max_positions > 0 ? model.config().max_positions : longest;
  const std::int64_t window = options.window > 0 ? options.window : std::min(longest, context);
  require(window >= 2, "window: found ", window, ", expected at least 2");
  const std::int64_t stride = options.stride > 0 ? options.stride : std::max<std::int64_t>(window / 2, 1);
  require(stride < window, "stride: found ", stride, ", expected less than the window, ", window);
  Perplexity result;
  std::vector<PackedBatch::Sample> windows;
  for (const std::string& text : perplexities::read_texts(file, options.limit)) {
    ++result.texts;
    result.bytes += std::ssize(text);
    perplexities::add_windows(tokenizer.encode(text), window, stride, windows);
  }
  require(!windows.empty(), file.string(), ": found no text of two tokens or more");
  if (!options.output.empty()) {
    Json about = {{"task", "perplexity"},  {"model", options.identity}, {"data", file.string()}, {"texts", result.texts},
                  {"bytes", result.bytes}, {"window", window},          {"stride", stride}};
    if (!options.weights.empty()) about["weights"] = options.weights;
    keep_identity(options.output, about);
  }
  const std::vector<perplexities::Figures> figures =
      perplexities::measure(model, perplexities::packs_of(std::move(windows)), options);
  double tokens = 0, squares = 0;
  for (const auto& each : figures) result.nats += each.nats, tokens += each.tokens;
  result.tokens = std::llround(tokens);
  for (const auto& each : figures) squares += std::pow(each.nats - result.loss() * each.tokens, 2);
  result.standard_error = tokens > 0 ? std::sqrt(squares) / tokens : 0;
  if (!options.output.empty()) write_json(options.output / "score.json", result.to_json());
  return result;
}

}  // namespace molt
