// What is kept of a distribution over a large vocabulary: its largest probabilities, and what the others come to.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

namespace molt::ops {

// One row a token: k different ids, and k + 1 logarithms of probabilities, the last one that of all other tokens together (-inf
// where there are none). Rows whose probabilities do not sum to one, as rounding leaves them, are taken to.
struct TopProbabilities {
  at::Tensor ids;        // (tokens, k), integers
  at::Tensor log_probs;  // (tokens, k + 1)

  bool defined() const { return ids.defined(); }
};

// Of softmax(hidden weight^T / temperature), the largest first, in chunks of tokens: hidden (tokens, hidden), weight (vocabulary,
// hidden), k from 1 to the vocabulary. ids are int64, log_probs fp32 (fp64 for fp64). Not differentiable.
TopProbabilities top_probabilities(const at::Tensor& hidden, const at::Tensor& weight, std::int64_t k, double temperature = 1);

}  // namespace molt::ops
