#include "ops/linear_loss/top_probabilities.h"

#include <ATen/Functions.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <limits>

#include "base/error.h"
#include "ops/linear_loss/linear_loss.h"
#include "ops/linear_loss/loss_chunk.h"
#include "ops/linear_loss/loss_memory.h"
#include "ops/products.h"

namespace molt::ops {

TopProbabilities top_probabilities(const at::Tensor& hidden, const at::Tensor& weight, std::int64_t k, double temperature) {
  const std::int64_t tokens = hidden.size(0), vocabulary = weight.size(0);
  MOLT_CHECK(
      hidden.dim() == 2 && weight.dim() == 2 && hidden.size(1) == weight.size(1) && k >= 1 && k <= vocabulary && temperature > 0,
      "top_probabilities: hidden ", hidden.sizes(), ", weight ", weight.sizes(), ", k ", k, ", temperature ", temperature);
  const c10::NoGradGuard no_grad;
  const at::TensorOptions options = hidden.options().dtype(sum_dtype(hidden));
  TopProbabilities result{at::empty({tokens, k}, options.dtype(at::kLong)), at::empty({tokens, k + 1}, options)};
  const std::int64_t rows =
      loss_chunks(tokens, vocabulary, /*teacher=*/true, /*gradient=*/false, hidden.scalar_type(), hidden.device()).rows;
  const at::Tensor buffer = at::empty({rows, vocabulary}, options);
  for (std::int64_t begin = 0; begin < tokens; begin += rows) {
    const std::int64_t end = std::min(tokens, begin + rows);
    at::Tensor logits = buffer.slice(0, 0, end - begin);
    multiply(logits, hidden.slice(0, begin, end), weight.t());
    logits.div_(temperature);
    const at::Tensor total = logits.logsumexp(1, /*keepdim=*/true);
    const auto [values, ids] = logits.topk(k, 1);
    // Not 1 less the k probabilities, which loses what is left in their rounding.
    const at::Tensor others = logits.scatter_(1, ids, -std::numeric_limits<double>::infinity()).logsumexp(1, /*keepdim=*/true);
    result.ids.slice(0, begin, end).copy_(ids);
    result.log_probs.slice(0, begin, end).copy_(at::cat({values, others}, 1).sub_(total));
  }
  return result;
}

}  // namespace molt::ops
