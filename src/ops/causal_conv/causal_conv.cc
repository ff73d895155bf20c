#include "ops/causal_conv/causal_conv.h"

#include <ATen/Functions.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/GradMode.h>

#include "base/error.h"
#include "ops/autograd.h"
#include "ops/causal_conv/causal_conv_kernels.h"
#include "ops/causal_conv/causal_conv_node.h"
#include "ops/clear_begun.h"
#include "ops/cuda_dispatch.h"
#include "ops/gradient_room.h"

namespace molt::ops {

namespace conv {

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
  return has_cuda_kernel(in.x) || (in.x.is_cpu() && (dtype == at::kFloat || dtype == at::kBFloat16 || dtype == at::kDouble));
}

bool has_narrow_weight(const ConvInput& in) {
  const auto narrow = [](const at::Tensor& tensor) { return !tensor.defined() || tensor.scalar_type() == at::kBFloat16; };
  return in.x.is_cuda() && narrow(in.weight) && narrow(in.bias);
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
  const auto weight_type = has_narrow_weight(in) ? at::kBFloat16 : precision;
  const at::Tensor x = in.x.to(type);
  Prepared p{.x = x.stride(1) == 1 || x.size(1) == 1 ? x : x.contiguous(),
             .weight = dense(in.weight, weight_type),
             .bias = dense(in.bias, weight_type),
             .initial_window = dense(in.initial_window, type),
             .arguments = {},
             .values = in.x.options().dtype(type),
             .sums = in.x.options().dtype(precision)};
  Arguments& a = p.arguments;
  a.type = narrow_kernel ? DataType::bfloat16 : precision == at::kDouble ? DataType::float64 : DataType::float32;
  a.weight_type = data_type(p.weight);
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
#define MOLT_CONV_KERNEL(device, name, ...) (device.is_cuda() ? cuda_##name(__VA_ARGS__, cuda_stream()) : cpu_##name(__VA_ARGS__))
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

// What backward is given, and the room for what it gives.
struct Room {
  at::Tensor gy, gx, gwindow, weight_shares, bias_shares;
  Gradients gradients;
};

Room room(const ConvInput& in, const Prepared& p, const at::Tensor& y, bool window_needed, const at::Tensor& x_room) {
  const Arguments& a = p.arguments;
  const std::int64_t parts = parts_of_work(a, in.x.device());
  const auto fresh = [&](at::IntArrayRef shape) {
    return in.x.is_cpu() ? at::zeros(shape, p.values) : at::empty(shape, p.values);
  };
  const auto type = at::typeMetaToScalarType(p.values.dtype());
  const bool has_room = x_room.defined() && x_room.scalar_type() == type;
  Room r{.gy = dense(y, type),
         .gx = has_room ? x_room : fresh({a.tokens, a.columns}),
         .gwindow = window_needed ? fresh({a.sequences, a.columns, a.width - 1}) : at::Tensor(),
         .weight_shares = at::empty({parts, a.channels, a.width}, p.sums),
         .bias_shares = in.bias.defined() ? at::empty({parts, a.channels}, p.sums) : at::Tensor(),
         .gradients = {}};
  if (has_room && in.x.is_cpu()) r.gx.zero_();
  if (reinterpret_cast<std::uintptr_t>(data(r.gy)) % 16 != 0) r.gy = r.gy.clone();
  r.gradients = {.y = data(r.gy),
                 .x = mutable_data(r.gx),
                 .initial_window = mutable_data(r.gwindow),
                 .x_stride = r.gx.stride(0),
                 .parts = parts,
                 .weight = mutable_data(r.weight_shares),
                 .bias = mutable_data(r.bias_shares)};
  return r;
}

// Of columns (rows, columns, …) by groups: (rows, groups, repeat, group_size, …), where the second gives room for repeats.
at::Tensor repeated(const at::Tensor& columns, const ConvInput& in) {
  if (!columns.defined()) return columns;
  const at::Tensor groups = columns.unflatten(1, {-1, 1, in.group_size});
  auto shape = groups.sizes().vec();
  shape[2] = in.repeat;
  return groups.to(at::kFloat).expand(shape).flatten(1, 3);
}
at::Tensor sum_repeats(const at::Tensor& channels, const ConvInput& in) {
  if (!channels.defined()) return channels;
  return channels.unflatten(1, {-1, in.repeat, in.group_size}).sum(2).flatten(1, 2).to(in.x.scalar_type());
}

// For a repeat that the GPU's kernel does not take: x is repeated in memory, in float32.
Tensors backward_repeated(const ConvInput& in, const Sequences& sequences, const at::Tensor& y, const std::vector<bool>& needed,
                          SharedSums& sums) {
  ConvInput wide = in;
  wide.x = repeated(in.x, in);
  wide.initial_window = repeated(in.initial_window, in);
  wide.repeat = 1;
  Tensors results = backward(wide, sequences, y.to(at::kFloat), needed, {}, sums);
  results[0] = sum_repeats(results[0], in);
  results[3] = sum_repeats(results[3], in);
  return results;
}

Tensors backward(const ConvInput& in, const Sequences& sequences, const at::Tensor& y, const std::vector<bool>& needed,
                 const at::Tensor& x_room, SharedSums& sums) {
  const c10::DeviceGuard guard(in.x.device());
  const Prepared p = prepare(in, sequences);
#ifdef MOLT_CUDA
  if (in.x.is_cuda() && !cuda_takes_repeat(p.arguments)) {
    Tensors results = backward_repeated(in, sequences, y, needed, sums);
    place(results[0], x_room);
    return results;
  }
#endif
  const Room r = room(in, p, y, needed[3], x_room);
  MOLT_CONV_KERNEL(in.x.device(), backward, p.arguments, r.gradients);
  Tensors results = {r.gx.to(in.x.scalar_type()), sums.add(r.weight_shares, in.weight), sums.add(r.bias_shares, in.bias), {}};
  if (r.gwindow.defined()) results[3] = r.gwindow.to(in.x.scalar_type());
  place(results[0], x_room);
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
        SharedSums sums;
        Tensors results = conv::backward(in, sequences, gradients[0], needed, {}, sums);
        sums.finish();
        return results;
      })[0];
}

at::Tensor causal_conv_update(const ConvInput& input, const at::Tensor& cache, const at::Tensor& slots,
                              const at::Tensor& context_lens) {
  c10::AutoGradMode no_recording(false);
  const std::int64_t n = slots.numel();
  conv::check(input, n, n);
  const bool wide = slots.scalar_type() == at::kLong;
  MOLT_CHECK(wide || slots.scalar_type() == at::kInt, "causal_conv_update: slots are int32 or int64");
  MOLT_CHECK(cache.dim() == 3 && cache.is_contiguous() && cache.size(1) == input.x.size(1) &&
                 cache.size(2) == input.weight.size(1) - 1 && cache.scalar_type() == input.x.scalar_type() &&
                 cache.device() == input.x.device() && slots.device() == input.x.device() && slots.is_contiguous(),
             "causal_conv_update: cache ", cache.sizes(), " for ", input.x.size(1), " columns");
  if (context_lens.defined() && !(conv::has_kernel(input) && cache.is_cuda())) clear_begun(cache, slots, context_lens);
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
  conv::Update update{.arguments = p.arguments,
                      .cache = mutable_data(cache),
                      .slots = data(slots),
                      .wide_slots = wide,
                      .contexts = static_cast<const std::int32_t*>(data(context_lens))};
  update.arguments.y = mutable_data(y);
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
