#include "ops/swiglu/swiglu.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <c10/core/DeviceGuard.h>

#include <algorithm>

#include "base/error.h"
#include "ops/autograd.h"
#include "ops/cuda_dispatch.h"
#include "ops/lanes.h"
#include "ops/swiglu/swiglu_cuda.h"

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
void run(const at::Tensor& gate_up, const at::Tensor& gradient, const at::Tensor& out) {
  const std::int64_t n = gate_up.size(1) / 2;
  const Work<T> work{gate_up.const_data_ptr<T>(), gradient.defined() ? gradient.const_data_ptr<T>() : nullptr,
                     out.mutable_data_ptr<T>(), n};
  const std::int64_t grain = std::max<std::int64_t>(1, 8192 / std::max<std::int64_t>(n, 1));
  at::parallel_for(0, gate_up.size(0), grain, [&](std::int64_t begin, std::int64_t end) { rows(work, begin, end); });
}

}  // namespace swiglu_cpu

namespace swiglu_operation {

// The result or, with the gradient of it, the gradient of gate_up.
at::Tensor run(const at::Tensor& gate_up, const at::Tensor& gradient) {
  const c10::DeviceGuard guard(gate_up.device());
  const std::int64_t rows = gate_up.size(0), n = gate_up.size(1) / 2;
  const at::Tensor out = gradient.defined() ? at::empty_like(gate_up) : at::empty({rows, n}, gate_up.options());
#ifdef MOLT_CUDA
  if (gate_up.is_cuda()) {
    const SwigluCuda work{data_type(gate_up), data(gate_up), data(gradient), mutable_data(out), rows, n};
    (gradient.defined() ? cuda_swiglu_backward : cuda_swiglu_forward)(work, cuda_stream());
    return out;
  }
#endif
  (gate_up.scalar_type() == at::kFloat ? swiglu_cpu::run<float> : swiglu_cpu::run<double>)(gate_up, gradient, out);
  return out;
}

bool has_kernel(const at::Tensor& x) {
  return has_cuda_kernel(x) || (x.is_cpu() && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kDouble));
}

}  // namespace swiglu_operation

at::Tensor swiglu(const at::Tensor& gate_up) {
  MOLT_CHECK(gate_up.dim() == 2 && gate_up.size(1) % 2 == 0, "swiglu: gate_up ", gate_up.sizes());
  if (!swiglu_operation::has_kernel(gate_up)) return swiglu_composite(gate_up);
  return record(
      {gate_up},
      [&](Saved& saved) -> Tensors {
        saved.tensors = {gate_up.contiguous()};
        return {swiglu_operation::run(saved.tensors[0], {})};
      },
      [](const Tensors& saved, const Tensors& gradients, const std::vector<bool>&) -> Tensors {
        if (!gradients[0].defined()) return {at::Tensor()};
        return {swiglu_operation::run(saved[0], gradients[0].contiguous())};
      })[0];
}

at::Tensor swiglu_composite(const at::Tensor& gate_up) {
  const auto halves = gate_up.chunk(2, -1);
  if (gate_up.scalar_type() == at::kDouble) return at::silu(halves[0]) * halves[1];
  return (at::silu(halves[0].to(at::kFloat)) * halves[1]).to(gate_up.scalar_type());
}

}  // namespace molt::ops
