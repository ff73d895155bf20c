// Plans of cuDNN's fused attention, made once for each problem. cudnn_frontend's headers, which take long to compile, stay behind
// cudnn_plan.cc.
#pragma once
#include <ATen/core/Tensor.h>

#include <array>
#include <compare>
#include <cstdint>
#include <memory>

namespace molt::ops::cudnn {

// The tensors of a plan, (tokens, heads, head_size) each; statistics (log-sum-exp) fp32 (tokens, heads, 1), of a dense problem
// (sequences, heads, longest_query).
enum Operand { q, k, v, out, statistics, out_gradient, q_gradient, k_gradient, v_gradient, kOperands };
constexpr bool of_keys(int operand) {
  return operand == k || operand == v || operand == k_gradient || operand == v_gradient;
}

enum class Pass { inference, training, backward };

// Everything that a plan depends on.
struct Problem {
  at::DeviceIndex device = 0;
  at::ScalarType dtype = at::kBFloat16;
  Pass pass = Pass::inference;
  std::int64_t heads = 0, kv_heads = 0, head_size = 0;
  std::int64_t sequences = 0, longest_query = 0, longest_key = 0;  // upper bounds
  std::int64_t query_tokens = 0, key_tokens = 0;                   // upper bounds, of all sequences together; for backward alone
  double scale = 1;
  std::int64_t window = 0;      // 0: none
  bool queries_at_end = false;  // query i stands at position keys - queries + i; else at i
  bool dense = false;           // the bounds are met exactly, by as many keys as queries: cuDNN saves some percent
  struct Strides {
    std::int64_t token = 0, head = 0;
    auto operator<=>(const Strides&) const = default;
  };
  std::array<Strides, kOperands> strides;  // in elements

  auto operator<=>(const Problem&) const = default;
  bool uses(int operand) const {
    return operand <= (pass == Pass::backward ? v_gradient : pass == Pass::training ? statistics : out);
  }
};

class Plan {
 public:
  virtual ~Plan() = default;
  // Runs in order on the current stream. `tensors`: data of each operand that the problem uses. offsets int64 (operands,
  // sequences + 1), one row for each operand that the problem uses, in order; lengths int32 (2, sequences): pack_layout.h. Both
  // are unused where the problem is dense.
  virtual void run(const std::array<void*, kOperands>& tensors, const at::Tensor& offsets, const at::Tensor& lengths) const = 0;
};

// The plan of a problem, from the cache or made now (about a tenth of a second); null where cuDNN has none for it, which is
// logged once.
std::shared_ptr<const Plan> plan_for(const Problem& problem);

}  // namespace molt::ops::cudnn
