#include "ops/adamw/adamw.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <c10/core/DeviceGuard.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "base/error.h"
#include "ops/adamw/adamw_cuda.h"
#include "ops/cuda_dispatch.h"

namespace molt::ops {

namespace adamw_operation {

// The norm of a flat tensor in one threaded pass: by rows first, because LibTorch reduces to a single number on one thread and
// with one fp32 sum.
at::Tensor norm_of(const at::Tensor& flat) {
  constexpr std::int64_t row = 1024;
  const std::int64_t rows = flat.numel() / row;
  const at::ScalarType type = flat.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor head = at::linalg_vector_norm(flat.narrow(0, 0, rows * row).view({rows, row}), 2, {1}, false, type);
  const at::Tensor tail = at::linalg_vector_norm(flat.slice(0, rows * row), 2, std::nullopt, false, type);
  return at::linalg_vector_norm(at::cat({head, tail.reshape({1})}).to(at::kDouble), 2);
}

#ifdef MOLT_CUDA
GradientScale clip_gradients_cuda(const std::vector<at::Tensor>& gradients, double divisor, double clip_norm,
                                  const at::Tensor& limit) {
  const c10::DeviceGuard guard(gradients[0].device());
  const std::int64_t each = cuda_square_shares(), all = each * static_cast<std::int64_t>(gradients.size());
  const auto options = gradients[0].options();
  const at::Tensor shares = at::empty({all}, options);
  GradientScale result{at::empty({}, options), at::empty({}, options), at::empty({}, options)};
  float* share = shares.mutable_data_ptr<float>();
  for (const at::Tensor& gradient : gradients) {
    cuda_sum_squares(gradient.const_data_ptr<float>(), gradient.numel(), share, cuda_stream());
    share += each;
  }
  cuda_clip({.shares = shares.const_data_ptr<float>(),
             .count = all,
             .divisor = divisor,
             .clip_norm = clip_norm,
             .limit = limit.defined() ? limit.const_data_ptr<float>() : nullptr,
             .norm = result.norm.mutable_data_ptr<float>(),
             .scale = result.scale.mutable_data_ptr<float>(),
             .broken = result.broken.mutable_data_ptr<float>()},
            cuda_stream());
  return result;
}

void update_cuda(const AdamWBuffer& buffer, const AdamWStep& step, const GradientScale& scale) {
  const c10::DeviceGuard guard(buffer.weights.device());
  const at::Tensor& updated = buffer.master.defined() ? buffer.master : buffer.weights;
  MOLT_CHECK(!buffer.master.defined() || buffer.weights.scalar_type() == at::kBFloat16, "adamw: weights are ",
             buffer.weights.scalar_type());
  cuda_adamw({.weights = updated.mutable_data_ptr<float>(),
              .moment1 = buffer.moment1.mutable_data_ptr<float>(),
              .moment2 = buffer.moment2.mutable_data_ptr<float>(),
              .gradients = buffer.gradients.const_data_ptr<float>(),
              .narrow = buffer.master.defined() ? mutable_data(buffer.weights) : nullptr,
              .ranges = buffer.ranges.const_data_ptr<double>(),
              .count = buffer.weights.numel(),
              .range_count = buffer.ranges.size(0),
              .scale = scale.scale.const_data_ptr<float>(),
              .broken = scale.broken.const_data_ptr<float>(),
              .learning_rate = static_cast<float>(step.learning_rate),
              .beta1 = static_cast<float>(step.beta1),
              .beta2 = static_cast<float>(step.beta2),
              .epsilon = static_cast<float>(step.epsilon),
              .rest1 = static_cast<float>(1 - step.beta1),
              .rest2 = static_cast<float>(1 - step.beta2),
              .correction1 = static_cast<float>(1 - std::pow(step.beta1, step.step)),
              .correction2 = static_cast<float>(1 - std::pow(step.beta2, step.step))},
             cuda_stream());
}
#endif

// By LibTorch's fused operation, one call for all ranges alike.
void update(const AdamWBuffer& buffer, const AdamWStep& step, const GradientScale& scale) {
  const at::Tensor& updated = buffer.master.defined() ? buffer.master : buffer.weights;
  const at::Tensor steps = at::full_like(scale.scale, static_cast<double>(step.step)), ranges = buffer.ranges.cpu();
  std::map<std::pair<double, double>, std::vector<std::pair<std::int64_t, std::int64_t>>> alike;
  std::int64_t begin = 0;
  for (std::int64_t i = 0; i < ranges.size(0); ++i) {
    const double* range = ranges.const_data_ptr<double>() + 3 * i;
    const auto end = static_cast<std::int64_t>(range[0]);
    alike[{range[1], range[2]}].push_back({begin, end});
    begin = end;
  }
  for (const auto& [settings, places] : alike) {
    std::vector<at::Tensor> values, gradients, moments1, moments2;
    for (const auto& [from, to] : places) {
      values.push_back(updated.slice(0, from, to));
      gradients.push_back(buffer.gradients.slice(0, from, to));
      moments1.push_back(buffer.moment1.slice(0, from, to));
      moments2.push_back(buffer.moment2.slice(0, from, to));
    }
    at::_fused_adamw_(values, gradients, moments1, moments2, {}, std::vector<at::Tensor>(values.size(), steps),
                      step.learning_rate * settings.second, step.beta1, step.beta2, settings.first, step.epsilon,
                      /*amsgrad=*/false, /*maximize=*/false, scale.scale, scale.broken);
  }
  if (buffer.master.defined()) buffer.weights.copy_(buffer.master);
}

bool on_cuda([[maybe_unused]] const at::Tensor& gradients) {
#ifdef MOLT_CUDA
  return gradients.is_cuda() && gradients.scalar_type() == at::kFloat;
#else
  return false;
#endif
}

}  // namespace adamw_operation

GradientScale clip_gradients(const std::vector<at::Tensor>& gradients, double divisor, double clip_norm,
                             const at::Tensor& limit) {
  MOLT_CHECK(divisor > 0 && !gradients.empty(), gradients.size(), " gradients are divided by ", divisor);
#ifdef MOLT_CUDA
  if (std::all_of(gradients.begin(), gradients.end(), adamw_operation::on_cuda))
    return adamw_operation::clip_gradients_cuda(gradients, divisor, clip_norm, limit);
#endif
  std::vector<at::Tensor> norms;
  for (const at::Tensor& gradient : gradients) norms.push_back(adamw_operation::norm_of(gradient));
  const at::Tensor norm = (norms.size() == 1 ? norms[0] : at::linalg_vector_norm(at::stack(norms), 2)) / divisor;
  at::Tensor scale = at::full_like(norm, divisor), broken = at::isfinite(norm).logical_not();
  if (clip_norm > 0) scale.mul_((norm / clip_norm).clamp_min(1.0));
  if (limit.defined()) broken.logical_or_(norm > limit);
  return {norm.to(at::kFloat), scale.to(at::kFloat), broken.to(at::kFloat)};
}

at::Tensor adamw_ranges(const std::vector<AdamWRange>& ranges, at::Device device) {
  const at::Tensor table = at::empty({static_cast<std::int64_t>(ranges.size()), 3}, at::kDouble);
  double* row = table.mutable_data_ptr<double>();
  for (const AdamWRange& range : ranges) {
    *row++ = static_cast<double>(range.end);
    *row++ = range.weight_decay;
    *row++ = range.learning_rate_factor;
  }
  return table.to(device);
}

void adamw(const AdamWBuffer& buffer, const AdamWStep& step, const GradientScale& scale) {
  MOLT_CHECK(buffer.ranges.dim() == 2 && buffer.ranges.size(1) == 3, "adamw: ranges ", buffer.ranges.sizes());
#ifdef MOLT_CUDA
  if (adamw_operation::on_cuda(buffer.gradients)) return adamw_operation::update_cuda(buffer, step, scale);
#endif
  adamw_operation::update(buffer, step, scale);
}

}  // namespace molt::ops
