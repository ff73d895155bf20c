#include "ops/embedding/embedding.h"

#include <ATen/Functions.h>

#include <cstring>

#include "base/error.h"
#include "ops/new_tensor.h"

namespace molt::ops {

at::Tensor embedding_rows(const at::Tensor& weight, const at::Tensor& tokens) {
  MOLT_CHECK(weight.dim() == 2 && tokens.dim() == 1 && tokens.scalar_type() == at::kLong, "embedding_rows: weight ",
             weight.sizes(), ", tokens ", tokens.sizes(), " ", tokens.scalar_type());
  constexpr std::int64_t few = 64;  // more are worth LibTorch's threads
  if (!weight.is_cpu() || !weight.is_contiguous() || !tokens.is_contiguous() || tokens.size(0) > few)
    return at::embedding(weight, tokens);
  at::Tensor rows = new_tensor({tokens.size(0), weight.size(1)}, weight);
  const std::size_t bytes = static_cast<std::size_t>(weight.size(1)) * weight.element_size();
  const auto* from = static_cast<const char*>(weight.const_data_ptr());
  auto* to = static_cast<char*>(rows.mutable_data_ptr());
  const auto* token = tokens.const_data_ptr<std::int64_t>();
  for (std::int64_t i = 0; i < tokens.size(0); ++i, to += bytes) {
    MOLT_CHECK(token[i] >= 0 && token[i] < weight.size(0), "embedding_rows: token ", token[i], " of ", weight.size(0));
    std::memcpy(to, from + static_cast<std::size_t>(token[i]) * bytes, bytes);
  }
  return rows;
}

}  // namespace molt::ops
