// From logits to a token.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "infer/device_sampling.h"

namespace molt {

// Temperature first, then top_k, then top_p among what top_k left, as transformers orders them.
struct SamplingOptions {
  double temperature = 0;  // 0: greedy
  std::int64_t top_k = 0;  // the k most probable tokens; 0: all
  double top_p = 1;        // the fewest most probable tokens whose probabilities sum to at least top_p; 1: all
  std::uint64_t seed = 0;  // a request's tokens depend on its seed alone, not on what runs beside it
};

// UserError for a value out of range; `place` names the request.
void check_sampling(const SamplingOptions& options, const std::string& place);

// UserError unless a row of logits is finite.
void require_finite_logits(bool finite);

// The draw-th token of a request, from this row of a step's tokens, as it is drawn on a GPU (device_sampling.h).
Draw draw_of(const SamplingOptions& options, std::int64_t draw, std::int64_t row);

// One token a row of logits (rows, vocabulary), of any floating dtype. Row i is the `draws[i]`-th token of a request with
// options[i]: the random number u is a function of (seed, draw), and the token is the first one, by index among those kept, up
// to which the kept probabilities sum to more than u of the whole. Equal logits: the lower index counts as more probable.
// Log-probabilities at temperature 1, over the whole vocabulary, go to `log_probabilities`. On CPU results, one host copy on a
// GPU. UserError when a row is not finite.
std::vector<std::int32_t> sample(const at::Tensor& logits, const std::vector<SamplingOptions>& options,
                                 const std::vector<std::int64_t>& draws, std::vector<float>& log_probabilities);

// The same in plain tensor operations on the logits' device, which tests compare the others with.
std::vector<std::int32_t> sample_composite(const at::Tensor& logits, const std::vector<SamplingOptions>& options,
                                           const std::vector<std::int64_t>& draws, std::vector<float>& log_probabilities);

}  // namespace molt
