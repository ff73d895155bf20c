#include "ops/swiglu/swiglu.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>

#include <algorithm>

#include "base/error.h"
#include "ops/autograd.h"
#include "ops/lanes.h"

namespace molt::ops {

namespace swiglu_cpu {

template <class T>
struct Work {
  const T *gate_up, *gradient;  // gradient: of the result, null forward
  T* out;  // the result (rows, intermediate), or in backward the gradient of gate_up (rows, 2 * intermediate)
  std::int64_t intermediate;
};

template <class T>
MOLT_INLINE void row(const Work<T>& work, std::int64_t row) {
  const std::int64_t n = work.intermediate;
  const T *gate = work.gate_up + row * 2 * n, *up = gate + n;
  for (std::int64_t i = 0; i < n; i += kLanes<T>) {
    const std::int64_t left = n - i;
    const Lanes<T> g = load(gate + i, left), u = load(up + i, left), s = sigmoid(g);
    if (!work.gradient) {
      store(work.out + row * n + i, g * s * u, left);
    } else {
      const Lanes<T> d = load(work.gradient + row * n + i, left);
      T* out = work.out + row * 2 * n + i;
      store(out, d * u * s * (1 + g * (1 - s)), left);
      store(out + n, d * g * s, left);
    }
  }
}

MOLT_CLONES void rows(const Work<float>& work, std::int64_t begin, std::int64_t end) {
  for (std::int64_t i = begin; i < end; ++i) row(work, i);
}
MOLT_CLONES void rows(const Work<double>& work, std::int64_t begin, std::int64_t end) {
  for (std::int64_t i = begin; i < end; ++i) row(work, i);
}

template <class T>
at::Tensor run(const at::Tensor& gate_up, const at::Tensor& gradient) {
  const std::int64_t n = gate_up.size(1) / 2;
  at::Tensor out = gradient.defined() ? at::empty_like(gate_up) : at::empty({gate_up.size(0), n}, gate_up.options());
  const Work<T> work{gate_up.const_data_ptr<T>(), gradient.defined() ? gradient.const_data_ptr<T>() : nullptr,
                     out.mutable_data_ptr<T>(), n};
  const std::int64_t grain = std::max<std::int64_t>(1, 8192 / std::max<std::int64_t>(n, 1));
  at::parallel_for(0, gate_up.size(0), grain, [&](std::int64_t begin, std::int64_t end) { rows(work, begin, end); });
  return out;
}

at::Tensor run_typed(const at::Tensor& gate_up, const at::Tensor& gradient) {
  return gate_up.scalar_type() == at::kFloat ? run<float>(gate_up, gradient) : run<double>(gate_up, gradient);
}

}  // namespace swiglu_cpu

at::Tensor swiglu(const at::Tensor& gate_up) {
  MOLT_CHECK(gate_up.dim() == 2 && gate_up.size(1) % 2 == 0, "swiglu: gate_up ", gate_up.sizes());
  const bool has_kernel = gate_up.is_cpu() && (gate_up.scalar_type() == at::kFloat || gate_up.scalar_type() == at::kDouble);
  if (!has_kernel) return swiglu_composite(gate_up);
  return record(
      {gate_up},
      [&](Saved& saved) -> Tensors {
        saved.tensors = {gate_up.contiguous()};
        return {swiglu_cpu::run_typed(saved.tensors[0], {})};
      },
      [](const Tensors& saved, const Tensors& gradients, const std::vector<bool>&) -> Tensors {
        if (!gradients[0].defined()) return {at::Tensor()};
        return {swiglu_cpu::run_typed(saved[0], gradients[0].contiguous())};
      })[0];
}

at::Tensor swiglu_composite(const at::Tensor& gate_up) {
  const auto halves = gate_up.chunk(2, -1);
  if (gate_up.scalar_type() == at::kDouble) return at::silu(halves[0]) * halves[1];
  return (at::silu(halves[0].to(at::kFloat)) * halves[1]).to(gate_up.scalar_type());
}

}  // namespace molt::ops
