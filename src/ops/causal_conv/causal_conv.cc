#include "ops/causal_conv/causal_conv.h"

#include <ATen/Functions.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/GradMode.h>

#include "base/error.h"
#include "ops/autograd.h"
#include "ops/causal_conv/causal_conv_kernels.h"
#ifdef MOLT_CUDA
#include <c10/cuda/CUDAStream.h>
#endif

namespace molt::ops {

namespace conv {

const void* data(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.const_data_ptr() : nullptr;
}
void* mutable_data(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.mutable_data_ptr() : nullptr;
}
at::Tensor dense(const at::Tensor& tensor, at::ScalarType dtype) {
  return tensor.defined() ? tensor.to(dtype).contiguous() : tensor;
}

void check(const ConvInput& in, std::int64_t tokens, std::int64_t sequences) {
  MOLT_CHECK(in.x.defined() && in.x.dim() == 2 && in.x.size(0) == tokens && in.x.size(1) > 0, "causal_conv: x must be (", tokens,
             ", columns)");
  const std::int64_t columns = in.x.size(1);
  MOLT_CHECK(in.repeat >= 1 && (in.repeat == 1 || (in.group_size >= 1 && columns % in.group_size == 0)), "causal_conv: ", columns,
             " columns are no groups of ", in.group_size);
  MOLT_CHECK(in.weight.defined() && in.weight.dim() == 2 && in.weight.size(0) == columns * in.repeat && in.weight.size(1) >= 2 &&
                 in.weight.size(1) <= 4,
             "causal_conv: weight must be (", columns * in.repeat, ", 2 to 4)");
  MOLT_CHECK(!in.bias.defined() || in.bias.sizes() == at::IntArrayRef({columns * in.repeat}), "causal_conv: bias must be (",
             columns * in.repeat, ")");
  MOLT_CHECK(!in.initial_window.defined() ||
                 (in.initial_window.sizes() == at::IntArrayRef({sequences, columns, in.weight.size(1) - 1}) &&
                  in.initial_window.scalar_type() == in.x.scalar_type()),
             "causal_conv: initial_window must be (", sequences, ", ", columns, ", ", in.weight.size(1) - 1, ") of x's dtype");
}

bool has_kernel(const ConvInput& in) {
  const auto dtype = in.x.scalar_type();
  if (in.x.is_cpu()) return dtype == at::kFloat || dtype == at::kBFloat16 || dtype == at::kDouble;
#ifdef MOLT_CUDA
  if (in.x.is_cuda()) return dtype == at::kFloat || dtype == at::kBFloat16;
#endif
  return false;
}

// The tensors as the kernels take them, and pointers to them.
struct Prepared {
  at::Tensor x, weight, bias, initial_window;
  Arguments arguments;
  at::TensorOptions values, sums;  // of the kernels' y and of what is float32 or float64
};

Prepared prepare(const ConvInput& in) {
  const auto dtype = in.x.scalar_type();
  const bool narrow_kernel = dtype == at::kBFloat16 && in.x.is_cuda();
  const auto precision = dtype == at::kDouble ? at::kDouble : at::kFloat, type = narrow_kernel ? at::kBFloat16 : precision;
  const at::Tensor x = in.x.to(type);
  Prepared p{.x = x.stride(1) == 1 || x.size(1) == 1 ? x : x.contiguous(),
             .weight = dense(in.weight, precision),
             .bias = dense(in.bias, precision),
             .initial_window = dense(in.initial_window, type),
             .arguments = {},
             .values = in.x.options().dtype(type),
             .sums = in.x.options().dtype(precision)};
  Arguments& a = p.arguments;
  a.type = narrow_kernel ? DataType::bfloat16 : precision == at::kDouble ? DataType::float64 : DataType::float32;
  a.tokens = in.x.size(0), a.columns = in.x.size(1);
  a.channels = in.weight.size(0), a.width = in.weight.size(1);
  a.repeat = in.repeat, a.group_size = in.group_size, a.silu = in.silu;
  a.x = data(p.x), a.x_stride = p.x.stride(0);
  a.weight = data(p.weight), a.bias = data(p.bias), a.initial_window = data(p.initial_window);
  return p;
}

Prepared prepare(const ConvInput& in, const Sequences& sequences) {
  Prepared p = prepare(in);
  p.arguments.sequences = sequences.count();
  p.arguments.offsets = in.x.is_cpu() ? sequences.offsets.data() : sequences.cu_seqlens.const_data_ptr<std::int32_t>();
  return p;
}

// `cpu(arguments…)` or `cuda(arguments…, stream)` by where the data is.
#ifdef MOLT_CUDA
#define MOLT_CONV_KERNEL(device, name, ...) \
  (device.is_cuda() ? cuda_##name(__VA_ARGS__, c10::cuda::getCurrentCUDAStream().stream()) : cpu_##name(__VA_ARGS__))
#else
#define MOLT_CONV_KERNEL(device, name, ...) cpu_##name(__VA_ARGS__)
#endif

std::int64_t parts_of_work(const Arguments& a, at::Device device) {
#ifdef MOLT_CUDA
  if (device.is_cuda()) return cuda_parts(a);
#endif
  MOLT_CHECK(device.is_cpu(), "causal_conv has no kernel for ", device);
  return cpu_parts(a);
}

at::Tensor forward(const ConvInput& in, const Sequences& sequences) {
  const c10::DeviceGuard guard(in.x.device());
  Prepared p = prepare(in, sequences);
  const at::Tensor y = at::empty({p.arguments.tokens, p.arguments.channels}, p.values);
  p.arguments.y = mutable_data(y);
  MOLT_CONV_KERNEL(in.x.device(), forward, p.arguments);
  return y.to(in.x.scalar_type());
}

// The GPU's shares of a gradient by channel (rows, channels, …), summed over the channels that read the same column.
at::Tensor sum_repeats(const at::Tensor& shares, const Arguments& a) {
  if (a.repeat == 1) return shares;
  auto shape = shares.sizes().vec();
  shape[1] = a.columns;
  const std::int64_t last = shape.size() > 2 ? shape[2] : 1;
  return shares.view({shape[0], a.columns / a.group_size, a.repeat, a.group_size, last}).sum(2).view(shape);
}

// Of x, weight, bias and initial_window.
Tensors backward(const ConvInput& in, const Sequences& sequences, const at::Tensor& y, const std::vector<bool>& needed) {
  const c10::DeviceGuard guard(in.x.device());
  const Prepared p = prepare(in, sequences);
  const Arguments& a = p.arguments;
  const bool on_cpu = in.x.is_cpu();
  const std::int64_t parts = parts_of_work(a, in.x.device()), rows = on_cpu ? a.columns : a.channels;
  const auto shares = on_cpu ? p.values : p.sums;
  const at::Tensor gy = dense(y, at::typeMetaToScalarType(p.values.dtype()));
  at::Tensor gx = at::zeros({a.tokens, rows}, shares);
  at::Tensor gwindow = needed[3] ? at::zeros({a.sequences, rows, a.width - 1}, shares) : at::Tensor();
  at::Tensor gweight = at::empty({parts, a.channels, a.width}, p.sums);
  at::Tensor gbias = in.bias.defined() ? at::empty({parts, a.channels}, p.sums) : at::Tensor();
  const Gradients gradients{.y = data(gy),
                            .x = mutable_data(gx),
                            .initial_window = mutable_data(gwindow),
                            .parts = parts,
                            .weight = mutable_data(gweight),
                            .bias = mutable_data(gbias)};
  MOLT_CONV_KERNEL(in.x.device(), backward, a, gradients);
  if (!on_cpu) {
    gx = sum_repeats(gx, a);
    if (gwindow.defined()) gwindow = sum_repeats(gwindow, a);
  }
  Tensors results = {gx.to(in.x.scalar_type()), gweight.sum(0).to(in.weight.scalar_type()), {}, {}};
  if (gbias.defined()) results[2] = gbias.sum(0).to(in.bias.scalar_type());
  if (gwindow.defined()) results[3] = gwindow.to(in.x.scalar_type());
  return results;
}

}  // namespace conv

at::Tensor causal_conv(const ConvInput& input, const Sequences& sequences) {
  conv::check(input, sequences.tokens(), sequences.count());
  if (!conv::has_kernel(input)) return causal_conv_composite(input, sequences);
  const Tensors inputs = {input.x, input.weight, input.bias, input.initial_window};
  ConvInput settings;
  settings.silu = input.silu, settings.repeat = input.repeat, settings.group_size = input.group_size;
  return record(
      inputs,
      [&](Saved& saved) {
        saved.tensors = inputs;
        return Tensors{conv::forward(input, sequences)};
      },
      [sequences, settings](const Tensors& saved, const Tensors& gradients, const std::vector<bool>& needed) {
        ConvInput in = settings;
        in.x = saved[0], in.weight = saved[1], in.bias = saved[2], in.initial_window = saved[3];
        return conv::backward(in, sequences, gradients[0], needed);
      })[0];
}

at::Tensor causal_conv_update(const ConvInput& input, const at::Tensor& cache, const at::Tensor& slots) {
  c10::AutoGradMode no_recording(false);
  const std::int64_t n = slots.numel();
  conv::check(input, n, n);
  const bool wide = slots.scalar_type() == at::kLong;
  MOLT_CHECK(wide || slots.scalar_type() == at::kInt, "causal_conv_update: slots are int32 or int64");
  MOLT_CHECK(cache.dim() == 3 && cache.is_contiguous() && cache.size(1) == input.x.size(1) &&
                 cache.size(2) == input.weight.size(1) - 1 && cache.scalar_type() == input.x.scalar_type() &&
                 cache.device() == input.x.device() && slots.device() == input.x.device() && slots.is_contiguous(),
             "causal_conv_update: cache ", cache.sizes(), " for ", input.x.size(1), " columns");
  // The CPU's kernel has no bfloat16: its windows would have to be converted too.
  if (!conv::has_kernel(input) || (input.x.is_cpu() && input.x.scalar_type() == at::kBFloat16)) {
    ConvInput one = input;
    one.initial_window = cache.index_select(0, slots);
    const Sequences steps = Sequences::of(std::vector<std::int32_t>(n, 1), input.x.device());
    const at::Tensor y = causal_conv(one, steps);
    cache.index_copy_(0, slots.to(at::kLong), causal_conv_final_windows(one, steps));
    return y;
  }
  const c10::DeviceGuard guard(input.x.device());
  const conv::Prepared p = conv::prepare(input);
  const at::Tensor y = at::empty({n, p.arguments.channels}, p.values);
  conv::Update update{
      .arguments = p.arguments, .cache = conv::mutable_data(cache), .slots = conv::data(slots), .wide_slots = wide};
  update.arguments.y = conv::mutable_data(y);
  if (cache.is_cpu()) {
    for (std::int64_t i = 0; i < n; ++i) {
      const std::int64_t slot = wide ? slots.const_data_ptr<std::int64_t>()[i] : slots.const_data_ptr<std::int32_t>()[i];
      MOLT_CHECK(slot >= 0 && slot < cache.size(0), "causal_conv_update: slot ", slot, " of ", cache.size(0));
    }
  }
  using namespace conv;
  MOLT_CONV_KERNEL(cache.device(), update, update);
  return y;
}

}  // namespace molt::ops
