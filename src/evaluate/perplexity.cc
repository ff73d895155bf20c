#include "evaluate/perplexity.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numbers>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/progress.h"
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

// Negative log-probability and number of predicted tokens of each window of a pack.
std::vector<std::pair<double, double>> sums_of(const Model& model, const std::vector<PackedBatch::Sample>& windows) {
  const PackedBatch batch = PackedBatch::of(windows).to(model.device());
  const at::Tensor logs = ops::log_probs(model.forward(batch), model.head_weight(), batch.targets) * batch.loss_weights;
  const at::Tensor losses = at::stack({-logs.to(at::kDouble), batch.loss_weights.to(at::kDouble)}).cpu();
  std::vector<std::pair<double, double>> sums;
  for (std::int64_t i = 0; i < batch.sequences.count(); ++i) {
    const auto at = static_cast<std::size_t>(i);
    const at::Tensor sum = losses.slice(1, batch.sequences.offsets[at], batch.sequences.offsets[at + 1]).sum(1);
    sums.emplace_back(sum[0].item<double>(), sum[1].item<double>());
  }
  return sums;
}

}  // namespace perplexities

Perplexity measure_perplexity(const Model& model, const Tokenizer& tokenizer, const fs::path& file,
                              const PerplexityOptions& options) {
  constexpr std::int64_t longest = 2048, pack_tokens = 8192;
  const c10::InferenceMode no_gradients;
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

  std::vector<std::pair<double, double>> sums;
  Progress progress("perplexity", std::ssize(windows), "windows");
  for (auto first = windows.begin(); first != windows.end();) {
    throw_if_interrupted();
    std::int64_t tokens = 0;
    auto last = first;
    while (last != windows.end() && (last == first || tokens + std::ssize(last->tokens) <= pack_tokens))
      tokens += std::ssize((last++)->tokens);
    for (const auto& sum : perplexities::sums_of(model, {first, last})) sums.push_back(sum);
    first = last;
    progress.update(std::ssize(sums));
  }
  double weight = 0, squares = 0;
  for (const auto& [nats, count] : sums) result.nats += nats, weight += count;
  result.tokens = std::llround(weight);
  for (const auto& [nats, count] : sums) squares += std::pow(nats - result.loss() * count, 2);
  result.standard_error = weight > 0 ? std::sqrt(squares) / weight : 0;
  return result;
}

}  // namespace molt
