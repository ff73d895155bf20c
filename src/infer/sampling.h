// From logits to a token.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace molt {

struct SamplingOptions {
  double temperature = 0;  // 0: greedy
  std::int64_t top_k = 0;  // 0: all
  double top_p = 1;        // 1: all
  std::uint64_t seed = 0;  // a request's tokens depend on its seed alone, not on what runs beside it
};

// One token a row of logits (rows, vocabulary). Row i is the `draws[i]`-th token of a request with options[i]: the random number
// is a function of (seed, draw). Log-probabilities at temperature 1 go to `log_probabilities`. On CPU results, one host copy on a
// GPU.
std::vector<std::int32_t> sample(const at::Tensor& logits, const std::vector<SamplingOptions>& options,
                                 const std::vector<std::int64_t>& draws, std::vector<float>& log_probabilities);

}  // namespace molt
