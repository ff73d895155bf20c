#include "ops/attention/attention_cudnn.h"

#include <ATen/Context.h>
#include <ATen/Functions.h>
#include <c10/core/GradMode.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>
#include <array>
#include <utility>

#include "ops/attention/cudnn_plan.h"
#include "ops/attention/pack_layout.h"
#include "ops/autograd.h"

namespace molt::ops {

namespace attention_by_cudnn {

using namespace cudnn;
using Operands = std::array<at::Tensor, kOperands>;

// cuDNN reads rows in vectors of 16 bytes; parts of a projection may stay where they are. Its backward gives wrong gradients of
// operands that are not contiguous, without an error.
at::Tensor readable(const at::Tensor& tensor, bool training) {
  if (training) return tensor.detach().contiguous();
  const bool fits = tensor.stride(2) == 1 && tensor.stride(1) == tensor.size(2) &&
                    tensor.stride(0) * tensor.element_size() % 16 == 0 &&
                    reinterpret_cast<std::uintptr_t>(tensor.const_data_ptr()) % 16 == 0;
  return fits ? tensor.detach() : tensor.detach().clone(at::MemoryFormat::Contiguous);
}

std::int64_t power_of_two(std::int64_t least) {
  std::int64_t bound = 1;
  while (bound < least) bound *= 2;
  return bound;
}

// 4, 5, 6 or 7 times a power of two.
std::int64_t in_quarters(std::int64_t least) {
  const std::int64_t quarter = std::max<std::int64_t>(1, power_of_two(least) / 8);
  return (least + quarter - 1) / quarter * quarter;
}

struct Pack {
  const Sequences &queries, &keys;
};

// Gradients that are not there yet will lie as what they are gradients of.
Problem problem_of(Pass pass, const Operands& operands, const Pack& pack, double scale, std::optional<std::int64_t> window) {
  constexpr std::int64_t kShortest = 128;  // shorter sequences save nothing: a block of scores is as large
  Problem problem;
  problem.device = operands[q].device().index();
  problem.dtype = operands[q].scalar_type();
  problem.pass = pass;
  problem.heads = operands[q].size(1);
  problem.kv_heads = operands[k].size(1);
  problem.head_size = operands[q].size(2);
  problem.sequences = power_of_two(pack.queries.count());
  problem.longest_query = power_of_two(std::max(kShortest, pack.queries.max_length));
  problem.longest_key = power_of_two(std::max(kShortest, pack.keys.max_length));
  problem.queries_at_end = pack.queries.offsets != pack.keys.offsets;
  problem.dense = !problem.queries_at_end && pack.queries.tokens() == problem.sequences * problem.longest_query;
  if (pass == Pass::backward) {
    problem.query_tokens = in_quarters(pack.queries.tokens());
    problem.key_tokens = in_quarters(pack.keys.tokens());
  }
  problem.scale = scale;
  // A window that no sequence reaches out of masks nothing.
  problem.window = window && *window < pack.keys.max_length ? *window : 0;
  for (int i = 0; i < kOperands; ++i) {
    if (!problem.uses(i)) continue;
    const at::Tensor& like = operands[i].defined() ? operands[i] : operands[i == out_gradient ? out : i - q_gradient];
    problem.strides[i] = {like.stride(0), like.stride(1)};
  }
  return problem;
}

void run(const Plan& plan, const Problem& problem, const Operands& operands, const Pack& pack) {
  std::array<void*, kOperands> data{};
  for (int operand = 0; operand < kOperands; ++operand)
    if (problem.uses(operand)) data[operand] = operands[operand].data_ptr();
  if (problem.dense) return plan.run(data, {}, {});

  PackLayout layout;
  layout.cu_queries = pack.queries.cu_seqlens.const_data_ptr<std::int32_t>();
  layout.cu_keys = pack.keys.cu_seqlens.const_data_ptr<std::int32_t>();
  layout.sequences = pack.queries.count();
  layout.places = problem.sequences;
  for (int operand = 0; operand < kOperands; ++operand)
    if (problem.uses(operand)) layout.tensors[layout.count++] = {problem.strides[operand].token, of_keys(operand)};
  const auto options = operands[q].options();
  const at::Tensor offsets = at::empty({layout.count, layout.places + 1}, options.dtype(at::kLong));
  const at::Tensor lengths = at::empty({2, layout.places}, options.dtype(at::kInt));
  layout.offsets = offsets.mutable_data_ptr<std::int64_t>();
  layout.lengths = lengths.mutable_data_ptr<std::int32_t>();
  lay_out_pack(layout, c10::cuda::getCurrentCUDAStream().stream());
  plan.run(data, offsets, lengths);
}

// q, k, v as they are to be read, and room for the result and for what backward needs of it.
Operands forward_operands(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value, bool training) {
  Operands operands{readable(query, training), readable(key, training), readable(value, training)};
  operands[out] = at::empty(query.sizes(), query.options().requires_grad(false));
  if (training) operands[statistics] = at::empty({query.size(0), query.size(1), 1}, operands[out].options().dtype(at::kFloat));
  return operands;
}

Tensors gradients_of(const Plan& plan, const Problem& problem, const Tensors& saved, const at::Tensor& gradient,
                     const Sequences& sequences) {
  Operands operands{saved[0], saved[1], saved[2], saved[3], saved[4], gradient.contiguous()};
  for (int i = 0; i < 3; ++i) operands[q_gradient + i] = at::empty_like(saved[i]);
  run(plan, problem, operands, {sequences, sequences});
  return {operands[q_gradient], operands[k_gradient], operands[v_gradient]};
}

}  // namespace attention_by_cudnn

std::optional<at::Tensor> attention_cudnn(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                                          const Sequences& queries, const Sequences& keys, double scale,
                                          std::optional<std::int64_t> window) {
  using namespace attention_by_cudnn;
  const bool training = c10::GradMode::is_enabled() && (query.requires_grad() || key.requires_grad() || value.requires_grad());
  if (query.element_size() != 2 || (training && at::globalContext().deterministicAlgorithms())) return std::nullopt;

  const Pack pack{queries, keys};
  Operands operands = forward_operands(query, key, value, training);
  const Problem problem = problem_of(training ? Pass::training : Pass::inference, operands, pack, scale, window);
  if (training && problem.queries_at_end) return std::nullopt;
  const std::shared_ptr<const Plan> plan = plan_for(problem);
  if (!plan) return std::nullopt;
  if (!training) {
    run(*plan, problem, operands, pack);
    return operands[out];
  }

  const Problem backward = problem_of(Pass::backward, operands, pack, scale, window);
  const std::shared_ptr<const Plan> backward_plan = plan_for(backward);
  if (!backward_plan) return std::nullopt;
  return record(
      {query, key, value},
      [&](Saved& saved) -> Tensors {
        run(*plan, problem, operands, pack);
        saved.tensors = {operands[q], operands[k], operands[v], operands[out], operands[statistics]};
        return {operands[out]};
      },
      [backward, backward_plan, sequences = queries](const Tensors& saved, const Tensors& gradients,
                                                     const std::vector<bool>&) -> Tensors {
        if (!gradients[0].defined()) return Tensors(3);
        return gradients_of(*backward_plan, backward, saved, gradients[0], sequences);
      })[0];
}

}  // namespace molt::ops
