#include "infer/sampling.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/error.h"
#include "base/random.h"
#include "ops/lanes.h"
#ifdef MOLT_CUDA
#include <c10/cuda/CUDAStream.h>
#endif

namespace molt {
namespace sampling_detail {

double uniform(const SamplingOptions& options, std::int64_t draw) {
  return Random(derive_seed(options.seed, "token", static_cast<std::uint64_t>(draw))).uniform();
}

// Bounded, so that the most probable token's (0) times it stays a number.
double inverse_temperature(const SamplingOptions& options) {
  return std::min(1 / options.temperature, 1e30);
}

struct Largest {
  float value;
  std::int32_t token;  // the first that has it
};

MOLT_CLONES Largest largest(const float* values, std::int64_t count) {
  using namespace ops;
  constexpr int lanes = kLanes<float>;
  using Places = LanesOf<float>::Bits;
  Lanes<float> best = splat(-INFINITY);
  Places place = {}, here = {0, 1, 2, 3, 4, 5, 6, 7};
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes, here += lanes) {
    const Lanes<float> value = load(values + i);
    place = value > best ? here : place;
    best = larger(value, best);
  }
  Largest result{-INFINITY, 0};
  for (int lane = 0; lane < lanes; ++lane)
    if (best[lane] > result.value || (best[lane] == result.value && place[lane] < result.token))
      result = {best[lane], place[lane]};
  for (; i < count; ++i)
    if (values[i] > result.value) result = {values[i], static_cast<std::int32_t>(i)};
  return result;
}

// out[i] = exp((values[i] - shift) * scale), 0 where that is below the smallest normal number; returns the sum.
MOLT_CLONES double exponentials(const float* values, std::int64_t count, float shift, float scale, float* out) {
  using namespace ops;
  constexpr int lanes = kLanes<float>;
  constexpr std::int64_t block = 1024;  // summed in fp32 before it joins the fp64 sum
  const Lanes<float> smallest = splat(-87.0f);
  double total = 0;
  for (std::int64_t begin = 0; begin < count; begin += block) {
    const std::int64_t end = std::min(count, begin + block);
    Lanes<float> partial = {};
    for (std::int64_t i = begin; i < end; i += lanes) {
      const Lanes<float> x = (load(values + i, end - i) - shift) * scale;
      const Lanes<float> weight = x < smallest ? Lanes<float>{} : ops::exp(x);
      store(out + i, weight, end - i);
      if (end - i >= lanes) {
        partial += weight;
      } else {
        for (std::int64_t lane = 0; lane < end - i; ++lane) partial[lane] += weight[lane];
      }
    }
    total += sum(partial);
  }
  return total;
}

// The tokens that top_k and top_p leave, in ascending order. `weights` are not normalised.
std::vector<std::int32_t> kept_tokens(const std::vector<float>& weights, const SamplingOptions& options) {
  const auto vocabulary = static_cast<std::int64_t>(weights.size());
  const std::int64_t limit = options.top_k > 0 ? std::min(options.top_k, vocabulary) : vocabulary;
  std::vector<std::int32_t> order(weights.size());
  std::iota(order.begin(), order.end(), 0);
  const auto more_probable = [&](std::int32_t a, std::int32_t b) {
    return weights[a] != weights[b] ? weights[a] > weights[b] : a < b;
  };
  if (limit < vocabulary) std::nth_element(order.begin(), order.begin() + limit, order.end(), more_probable);
  order.resize(static_cast<std::size_t>(limit));
  if (options.top_p < 1) {
    double total = 0;
    for (const std::int32_t token : order) total += weights[token];
    // Few tokens usually carry top_p of the whole: sort no more than must be looked at.
    double reached = 0;
    std::int64_t kept = 0, sorted = 0;
    for (std::int64_t size = 128; reached < options.top_p * total && kept < limit; ++kept) {
      if (kept == sorted) {
        sorted = std::min(limit, sorted + size);
        std::partial_sort(order.begin() + kept, order.begin() + sorted, order.end(), more_probable);
        size *= 4;
      }
      reached += weights[order[kept]];
    }
    order.resize(static_cast<std::size_t>(std::max<std::int64_t>(kept, 1)));
  }
  std::sort(order.begin(), order.end());
  return order;
}

// The first token up to which the weights sum to more than u of the whole.
template <class TokenAt>
std::int32_t token_at(double u, std::int64_t count, const std::vector<float>& weights, const TokenAt& token) {
  double total = 0;
  for (std::int64_t i = 0; i < count; ++i) total += weights[token(i)];
  double reached = 0;
  std::int64_t last = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    reached += weights[token(i)];
    if (weights[token(i)] > 0) last = i;
    if (reached > u * total) break;
  }
  return static_cast<std::int32_t>(token(last));
}

struct Choice {
  std::int32_t token;
  float log_probability;
};

Choice choose(const float* logits, std::int64_t vocabulary, const SamplingOptions& options, std::int64_t draw,
              std::vector<float>& scratch) {
  scratch.resize(static_cast<std::size_t>(vocabulary));
  const auto [top, first] = largest(logits, vocabulary);
  const double total = exponentials(logits, vocabulary, top, 1.0f, scratch.data());
  require_finite_logits(std::isfinite(top) && std::isfinite(total));
  std::int32_t token;
  if (options.temperature == 0) {
    token = first;
  } else {
    if (options.temperature != 1) {
      exponentials(logits, vocabulary, top, static_cast<float>(inverse_temperature(options)), scratch.data());
    }
    const double u = uniform(options, draw);
    if (options.top_k == 0 && options.top_p == 1) {
      token = token_at(u, vocabulary, scratch, [](std::int64_t i) { return i; });
    } else {
      const auto kept = kept_tokens(scratch, options);
      token = token_at(u, static_cast<std::int64_t>(kept.size()), scratch, [&](std::int64_t i) { return kept[i]; });
    }
  }
  return {token, logits[token] - top - static_cast<float>(std::log(total))};
}

#ifdef MOLT_CUDA
std::vector<std::int32_t> sample_cuda(const at::Tensor& logits, const std::vector<SamplingOptions>& options,
                                      const std::vector<std::int64_t>& draws, std::vector<float>& log_probabilities) {
  const auto rows = static_cast<std::int64_t>(options.size());
  const auto bytes = [rows](std::size_t size) { return rows * static_cast<std::int64_t>(size); };
  at::Tensor asked = at::empty({bytes(sizeof(Draw))}, at::kByte);
  for (std::int64_t i = 0; i < rows; ++i) static_cast<Draw*>(asked.mutable_data_ptr())[i] = draw_of(options[i], draws[i], i);
  asked = asked.to(logits.device());
  at::Tensor drawn = at::empty({bytes(sizeof(Drawn))}, asked.options());
  const bool narrow = logits.scalar_type() == at::kBFloat16;
  const at::Tensor values = (narrow ? logits : logits.to(at::kFloat)).contiguous();
  sample_on_device({.bfloat16 = narrow,
                    .rows = rows,
                    .vocabulary = values.size(1),
                    .logits = values.const_data_ptr(),
                    .draws = static_cast<const Draw*>(asked.const_data_ptr()),
                    .drawn = static_cast<Drawn*>(drawn.mutable_data_ptr())},
                   c10::cuda::getCurrentCUDAStream().stream());
  drawn = drawn.cpu();
  const auto* results = static_cast<const Drawn*>(drawn.const_data_ptr());
  std::vector<std::int32_t> tokens(options.size());
  log_probabilities.resize(options.size());
  for (std::size_t i = 0; i < options.size(); ++i) {
    require_finite_logits(std::isfinite(results[i].log_probability));
    tokens[i] = results[i].token, log_probabilities[i] = results[i].log_probability;
  }
  return tokens;
}
#endif

}  // namespace sampling_detail

void require_finite_logits(bool finite) {
  require(finite, "the model's logits are not finite: its weights, or a cache of too few bits, are broken");
}

Draw draw_of(const SamplingOptions& options, std::int64_t draw, std::int64_t row) {
  const bool greedy = options.temperature == 0;
  return {.row = row,
          .inverse_temperature = greedy ? 0.0f : static_cast<float>(sampling_detail::inverse_temperature(options)),
          .top_k = static_cast<std::int32_t>(std::min<std::int64_t>(options.top_k, std::numeric_limits<std::int32_t>::max())),
          .top_p = options.top_p,
          .u = greedy ? 0.0 : sampling_detail::uniform(options, draw)};
}

void check_sampling(const SamplingOptions& options, const std::string& place) {
  require(std::isfinite(options.temperature) && options.temperature >= 0, place, "temperature: found ", options.temperature,
          ", expected 0 or more");
  require(options.top_k >= 0, place, "top_k: found ", options.top_k, ", expected 0 or more");
  require(options.top_p > 0 && options.top_p <= 1, place, "top_p: found ", options.top_p, ", expected more than 0 and at most 1");
}

std::vector<std::int32_t> sample(const at::Tensor& logits, const std::vector<SamplingOptions>& options,
                                 const std::vector<std::int64_t>& draws, std::vector<float>& log_probabilities) {
  const std::int64_t rows = logits.size(0), vocabulary = logits.size(1);
  MOLT_CHECK(rows == static_cast<std::int64_t>(options.size()) && options.size() == draws.size() && vocabulary > 0, rows,
             " rows of ", vocabulary, " for ", options.size(), " requests");
#ifdef MOLT_CUDA
  if (logits.is_cuda()) return sampling_detail::sample_cuda(logits, options, draws, log_probabilities);
#endif
  const at::Tensor values = (logits.scalar_type() == at::kFloat ? logits : logits.to(at::kFloat)).contiguous();
  const float* data = values.const_data_ptr<float>();
  std::vector<std::int32_t> tokens(options.size());
  log_probabilities.resize(options.size());
  constexpr std::int64_t elements_worth_a_thread = 1 << 16;
  at::parallel_for(
      0, rows, std::max<std::int64_t>(1, elements_worth_a_thread / vocabulary), [&](std::int64_t begin, std::int64_t end) {
        std::vector<float> scratch;
        for (std::int64_t i = begin; i < end; ++i) {
          const auto choice = sampling_detail::choose(data + i * vocabulary, vocabulary, options[i], draws[i], scratch);
          tokens[i] = choice.token;
          log_probabilities[i] = choice.log_probability;
        }
      });
  return tokens;
}

std::vector<std::int32_t> sample_composite(const at::Tensor& logits, const std::vector<SamplingOptions>& options,
                                           const std::vector<std::int64_t>& draws, std::vector<float>& log_probabilities) {
  c10::InferenceMode no_gradients;
  const std::int64_t rows = logits.size(0), vocabulary = logits.size(1);
  MOLT_CHECK(rows == static_cast<std::int64_t>(options.size()) && options.size() == draws.size() && vocabulary > 0, rows,
             " rows of ", vocabulary, " for ", options.size(), " requests");
  // One row of settings a request: greedy, 1 / temperature, top_k, top_p, u.
  at::Tensor settings = at::empty({5, rows, 1}, at::kDouble);
  auto setting = settings.accessor<double, 3>();
  bool all_greedy = true, truncated = false;
  for (std::int64_t i = 0; i < rows; ++i) {
    const auto& own = options[i];
    const bool greedy = own.temperature == 0;
    setting[0][i][0] = greedy;
    setting[1][i][0] = greedy ? 1 : sampling_detail::inverse_temperature(own);
    setting[2][i][0] = static_cast<double>(own.top_k > 0 ? own.top_k : vocabulary);
    setting[3][i][0] = own.top_p;
    setting[4][i][0] = sampling_detail::uniform(own, draws[i]);
    all_greedy = all_greedy && greedy;
    truncated = truncated || (!greedy && (own.top_k > 0 || own.top_p < 1));
  }
  const at::Tensor values = logits.to(at::kFloat);
  const at::Tensor log_total = at::logsumexp(values, {1}, true);
  at::Tensor tokens = values.argmax(1, true);
  if (!all_greedy) {
    settings = settings.to(logits.device());
    const at::Tensor top = values.amax(1, true);
    at::Tensor weights = at::exp((values - top).to(at::kDouble) * settings[1]);
    if (truncated) {
      const auto [sorted, order] = weights.sort(/*stable=*/true, 1, /*descending=*/true);
      const at::Tensor ranks = at::arange(vocabulary, values.options().dtype(at::kLong)).unsqueeze(0);
      const at::Tensor within = sorted * ranks.lt(settings[2]);
      const at::Tensor before = within.cumsum(1) - within;
      const at::Tensor kept = within * before.lt(settings[3] * within.sum(1, true)).logical_or(ranks.eq(0));
      weights = at::zeros_like(weights).scatter(1, order, kept);
    }
    const at::Tensor reached = weights.cumsum(1);
    // Rounding can leave the whole just short of u: then it is the last token with any weight, as its sum is the whole's.
    const at::Tensor goal =
        at::minimum(settings[4] * reached.narrow(1, vocabulary - 1, 1), reached.narrow(1, vocabulary - 1, 1) * (1 - 1e-15));
    const at::Tensor drawn = reached.le(goal).sum(1, true).clamp_max(vocabulary - 1);
    tokens = at::where(settings[0].gt(0), tokens, drawn);
  }
  const at::Tensor chosen = values.gather(1, tokens) - log_total;
  const at::Tensor result = at::cat({tokens.to(at::kDouble), chosen.to(at::kDouble)}, 1).cpu();
  const auto numbers = result.accessor<double, 2>();
  std::vector<std::int32_t> picked(options.size());
  log_probabilities.resize(options.size());
  for (std::int64_t i = 0; i < rows; ++i) {
    require_finite_logits(std::isfinite(numbers[i][1]));
    picked[i] = static_cast<std::int32_t>(numbers[i][0]);
    log_probabilities[i] = static_cast<float>(numbers[i][1]);
  }
  return picked;
}

}  // namespace molt
