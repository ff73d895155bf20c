#include "ops/selective_scan/selective_scan.h"

#include <ATen/Functions.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/GradMode.h>

#include <memory>

#include "base/error.h"
#include "ops/autograd.h"
#include "ops/causal_conv/causal_conv_node.h"
#include "ops/clear_begun.h"
#include "ops/cuda_dispatch.h"
#include "ops/gradient_room.h"
#include "ops/selective_scan/selective_scan_kernels.h"
#include "ops/selective_scan/selective_scan_node.h"

namespace molt::ops {

namespace scan {

// Whether each row begins where four elements can be read at once, which the GPU's kernels do.
bool aligned(const at::Tensor& tensor) {
  const auto bytes = 4 * tensor.element_size();
  return reinterpret_cast<std::uintptr_t>(tensor.const_data_ptr()) % bytes == 0 && tensor.stride(0) % 4 == 0;
}
// Rows of `dtype` whose elements lie beside each other; the tensor itself where it is so already.
at::Tensor rows(const at::Tensor& tensor, at::ScalarType dtype) {
  if (!tensor.defined()) return tensor;
  at::Tensor result = tensor.to(dtype);
  if (result.stride(1) != 1 && result.size(1) > 1) result = result.contiguous();
  return result.is_cpu() || aligned(result) ? result : result.clone(at::MemoryFormat::Contiguous);
}
at::Tensor dense(const at::Tensor& tensor, at::ScalarType dtype) {
  return tensor.defined() ? tensor.to(dtype).contiguous() : tensor;
}

void check_shape(const char* name, const at::Tensor& tensor, at::IntArrayRef shape, bool optional) {
  if (optional && !tensor.defined()) return;
  MOLT_CHECK(tensor.defined(), "selective_scan needs ", name);
  MOLT_CHECK(tensor.sizes() == shape, "selective_scan: ", name, " has shape ", tensor.sizes(), ", expected ", shape);
}

void check(const ScanInput& in, std::int64_t tokens, std::int64_t sequences) {
  MOLT_CHECK(in.dt.defined() && in.dt.dim() == 2 && in.A_log.defined() && in.A_log.dim() == 2 && in.B.defined() &&
                 in.B.dim() == 2 && in.x.defined() && in.x.dim() == 2,
             "selective_scan needs matrices x, dt, A_log and B");
  const std::int64_t d_inner = in.dt.size(1), state = in.A_log.size(1), d_xb = in.B.size(1);
  MOLT_CHECK(state > 0 && d_xb > 0 && d_xb % state == 0 && d_inner % d_xb == 0, "selective_scan: d_inner ", d_inner, ", d_xb ",
             d_xb, ", state ", state, " do not divide each other");
  check_shape("x", in.x, {tokens, in.x.size(1) == d_inner ? d_inner : d_xb}, false);
  check_shape("dt", in.dt, {tokens, d_inner}, false);
  check_shape("dt_bias", in.dt_bias, {d_inner}, true);
  check_shape("A_log", in.A_log, {d_inner, state}, false);
  check_shape("B", in.B, {tokens, d_xb}, false);
  check_shape("C", in.C, {tokens, d_inner}, false);
  check_shape("D", in.D, {d_inner}, true);
  check_shape("z", in.z, {tokens, d_inner}, true);
  check_shape("initial_state", in.initial_state, {sequences, d_inner, state}, true);
  for (const at::Tensor& other : {in.dt, in.B, in.C, in.z}) {
    MOLT_CHECK(!other.defined() || (other.scalar_type() == in.x.scalar_type() && other.device() == in.x.device()),
               "selective_scan: x, dt, B, C and z differ in dtype or device");
  }
}

bool has_kernel(const ScanInput& in) {
  const auto dtype = in.x.scalar_type();
  if (in.x.is_cpu()) return dtype == at::kFloat || dtype == at::kBFloat16 || dtype == at::kDouble;
#ifdef MOLT_CUDA
  if (in.x.is_cuda()) return (dtype == at::kFloat || dtype == at::kBFloat16) && in.A_log.size(1) <= kCudaLargestState;
#endif
  return false;
}

// The inputs as the kernels take them, and pointers to them.
struct Prepared {
  ScanInput in;
  Arguments arguments;
  at::TensorOptions values, states;  // of the kernels' y and of what is float32 or float64
};

Prepared prepare(const ScanInput& given) {
  Prepared p;
  const auto dtype = given.x.scalar_type();
  const bool narrow_kernel = dtype == at::kBFloat16 && given.x.is_cuda();
  const auto precision = dtype == at::kDouble ? at::kDouble : at::kFloat, type = narrow_kernel ? at::kBFloat16 : precision;
  const bool narrow_bias = given.x.is_cuda() && given.dt_bias.defined() && given.dt_bias.scalar_type() == at::kBFloat16;
  ScanInput& in = p.in;
  in = {.x = rows(given.x, type),
        .dt = rows(given.dt, type),
        .dt_bias = dense(given.dt_bias, narrow_bias ? at::kBFloat16 : precision),
        .A_log = dense(given.A_log, precision),
        .B = rows(given.B, type),
        .C = rows(given.C, type),
        .D = dense(given.D, precision),
        .z = rows(given.z, type),
        .initial_state = dense(given.initial_state, precision)};
  p.values = given.x.options().dtype(type);
  p.states = given.x.options().dtype(precision);

  Arguments& a = p.arguments;
  a.type = data_type(in.dt);
  a.tokens = in.dt.size(0);
  a.d_inner = in.dt.size(1);
  a.d_xb = in.B.size(1);
  a.x_columns = in.x.size(1);
  a.state = in.A_log.size(1);
  a.x = data(in.x), a.dt = data(in.dt), a.B = data(in.B), a.C = data(in.C), a.z = data(in.z);
  a.x_stride = in.x.stride(0), a.dt_stride = in.dt.stride(0), a.B_stride = in.B.stride(0), a.C_stride = in.C.stride(0);
  a.z_stride = in.z.defined() ? in.z.stride(0) : 0;
  a.dt_bias_type = narrow_bias ? DataType::bfloat16 : DataType::float32;
  a.dt_bias = data(in.dt_bias), a.A_log = data(in.A_log), a.D = data(in.D), a.initial_state = data(in.initial_state);
  return p;
}

Prepared prepare(const ScanInput& given, const Sequences& sequences) {
  Prepared p = prepare(given);
  p.arguments.sequences = sequences.count();
  p.arguments.offsets = given.x.is_cpu() ? sequences.offsets.data() : sequences.cu_seqlens.const_data_ptr<std::int32_t>();
  return p;
}

// `cpu(arguments…)` or `cuda(arguments…, stream)` by where the data is.
#ifdef MOLT_CUDA
#define MOLT_SCAN_KERNEL(device, name, ...) (device.is_cuda() ? cuda_##name(__VA_ARGS__, cuda_stream()) : cpu_##name(__VA_ARGS__))
#else
#define MOLT_SCAN_KERNEL(device, name, ...) cpu_##name(__VA_ARGS__)
#endif

// Elements of the states kept for the backward pass.
std::int64_t kept_size(const Arguments& a, at::Device device) {
  return device.is_cpu() ? keep_count(a.tokens, a.sequences, kCpuChunk) * cpu_state_size(a)
                         : keep_count(a.tokens, a.sequences, kChunk) * a.d_inner * a.state;
}

std::int64_t forward_scratch([[maybe_unused]] const Arguments& a, [[maybe_unused]] at::Device device) {
#ifdef MOLT_CUDA
  if (device.is_cuda()) return cuda_forward_scratch(a);
#endif
  return 0;
}
BackwardRoom backward_room(const Arguments& a, [[maybe_unused]] at::Device device) {
#ifdef MOLT_CUDA
  if (device.is_cuda()) return cuda_backward_room(a);
#endif
  return {.parts = cpu_parts(a)};
}

ScanInput unpack(const Tensors& saved) {
  return {.x = saved[0],
          .dt = saved[1],
          .dt_bias = saved[2],
          .A_log = saved[3],
          .B = saved[4],
          .C = saved[5],
          .D = saved[6],
          .z = saved[7],
          .initial_state = saved[8]};
}
Tensors pack(const ScanInput& in) {
  return {in.x, in.dt, in.dt_bias, in.A_log, in.B, in.C, in.D, in.z, in.initial_state};
}

bool takes_convolution([[maybe_unused]] const ScanInput& in, [[maybe_unused]] const ConvInput& conv) {
#ifdef MOLT_CUDA
  const std::int64_t d_inner = in.dt.size(1), state = in.A_log.size(1);
  return in.x.is_cuda() && has_kernel(in) && state == kCudaConvolvesFor && conv.silu && !conv.initial_window.defined() &&
         conv.weight.sizes() == at::IntArrayRef({d_inner, kTaps}) && (conv.repeat == 1 || conv.group_size == state);
#else
  return false;
#endif
}

// y, then the final state and the states at positions if they are wanted.
Tensors forward(const ScanInput& given, const Sequences& sequences, const ScanRequest& request, Saved& saved,
                const ConvInput* conv) {
  const c10::DeviceGuard guard(given.x.device());
  Prepared p = prepare(given, sequences);
  Arguments& a = p.arguments;
  at::Tensor positions, taps, taps_bias, x = given.x;
  if (conv) {
    const auto type = conv::has_narrow_weight(*conv) ? at::kBFloat16 : at::typeMetaToScalarType(p.states.dtype());
    taps = dense(conv->weight, type), taps_bias = dense(conv->bias, type);
    a.taps_type = data_type(taps);
    a.taps = data(taps), a.taps_bias = data(taps_bias);
    if (saved.recording) x = at::empty({a.tokens, a.d_inner}, p.values);
    if (saved.recording) a.convolved = mutable_data(x);
  }
  Tensors outputs = {at::empty({a.tokens, a.d_inner}, p.values)};
  a.y = mutable_data(outputs[0]);
  if (request.final_state) {
    a.final_state = mutable_data(outputs.emplace_back(at::empty({a.sequences, a.d_inner, a.state}, p.states)));
  }
  if (!request.positions.empty()) {
    a.position_count = static_cast<std::int64_t>(request.positions.size());
    positions = at::tensor(request.positions, at::kLong).to(given.x.device());
    a.positions = positions.const_data_ptr<std::int64_t>();
    a.states = mutable_data(outputs.emplace_back(at::empty({a.position_count, a.d_inner, a.state}, p.states)));
  }
  if (saved.recording) {
    saved.tensors = pack(given);
    saved.tensors[0] = x;
    saved.tensors.push_back(at::empty({kept_size(a, given.x.device())}, p.states));
    a.kept = mutable_data(saved.tensors.back());
  }
  const at::Tensor scratch = at::empty({forward_scratch(a, given.x.device())}, p.states);
  a.scratch = mutable_data(scratch);
  MOLT_SCAN_KERNEL(given.x.device(), forward, a);
  outputs[0] = outputs[0].to(given.x.scalar_type());
  return outputs;
}

Tensors backward(const ScanInput& given, const at::Tensor& kept, const Sequences& sequences, const at::Tensor& y,
                 const at::Tensor& final_state, const std::vector<bool>& needed, const GradientRoom& wanted, SharedSums& sums) {
  const c10::DeviceGuard guard(given.x.device());
  Prepared p = prepare(given, sequences);
  Arguments& a = p.arguments;
  a.kept = mutable_data(kept);
  const BackwardRoom room = backward_room(a, given.x.device());
  const at::Tensor scratch = at::empty({room.scratch}, p.states);
  a.scratch = mutable_data(scratch);
  const auto type = at::typeMetaToScalarType(p.values.dtype());
  const at::Tensor gy = rows(dense(y, type), type);
  const at::Tensor gfinal = dense(final_state, at::typeMetaToScalarType(p.states.dtype()));
  const auto parts_like = [&](const at::Tensor& input) {
    if (!input.defined()) return at::Tensor();
    auto shape = input.sizes().vec();
    shape.insert(shape.begin(), room.parts);
    return at::empty(shape, p.states);
  };
  const auto shared = [&](std::int64_t shares, std::int64_t columns) {
    return shares == 1 ? at::empty({a.tokens, columns}, p.values) : at::empty({shares, a.tokens, columns}, p.states);
  };
  const auto within = [&](const at::Tensor& its_room, std::int64_t columns) {
    const bool fits = its_room.defined() && its_room.scalar_type() == type && (its_room.is_cpu() || aligned(its_room));
    return fits ? its_room : shared(1, columns);
  };
  const at::Tensor gx = shared(room.x_shares, a.x_columns), gdt = shared(1, a.d_inner);
  const at::Tensor gB = room.B_shares == 1 ? within(wanted.B, a.d_xb) : shared(room.B_shares, a.d_xb);
  const at::Tensor gC = within(wanted.C, a.d_inner), gz = needed[7] ? within(wanted.z, a.d_inner) : at::Tensor();
  const at::Tensor gbias = parts_like(p.in.dt_bias), gA_log = parts_like(p.in.A_log), gD = parts_like(p.in.D);
  const at::Tensor ginitial = p.in.initial_state.defined() && needed[8] ? at::empty_like(p.in.initial_state) : at::Tensor();
  const Gradients gradients{.y = data(gy),
                            .final_state = data(gfinal),
                            .x = mutable_data(gx),
                            .dt = mutable_data(gdt),
                            .B = mutable_data(gB),
                            .C = mutable_data(gC),
                            .z = mutable_data(gz),
                            .initial_state = mutable_data(ginitial),
                            .B_stride = gB.stride(-2),
                            .C_stride = gC.stride(0),
                            .z_stride = gz.defined() ? gz.stride(0) : 0,
                            .x_shares = room.x_shares,
                            .B_shares = room.B_shares,
                            .parts = room.parts,
                            .dt_bias = mutable_data(gbias),
                            .D = mutable_data(gD),
                            .A_log = mutable_data(gA_log)};
  MOLT_SCAN_KERNEL(given.x.device(), backward, a, gradients);
  Tensors results = {room.x_shares == 1 ? gx : gx.sum(0),
                     gdt,
                     sums.add(gbias, given.dt_bias),
                     sums.add(gA_log, given.A_log),
                     room.B_shares == 1 ? gB : gB.sum(0),
                     gC,
                     sums.add(gD, given.D),
                     gz,
                     ginitial};
  const Tensors inputs = pack(given);
  for (std::size_t i = 0; i < results.size(); ++i) {
    if (results[i].defined()) results[i] = results[i].to(inputs[i].scalar_type());
  }
  place(results[4], wanted.B), place(results[5], wanted.C), place(results[7], wanted.z);
  return results;
}

}  // namespace scan

std::int64_t selective_scan_kept_bytes(std::int64_t tokens, std::int64_t sequences, const at::Tensor& A_log, at::ScalarType dtype,
                                       at::Device device) {
  scan::Arguments sizes;
  const bool wide = dtype == at::kDouble;
  sizes.type = wide ? DataType::float64 : DataType::float32;
  sizes.tokens = tokens, sizes.sequences = sequences;
  sizes.d_inner = A_log.size(0), sizes.state = A_log.size(1);
  return scan::kept_size(sizes, device) * static_cast<std::int64_t>(wide ? sizeof(double) : sizeof(float));
}

ScanOutput selective_scan(const ScanInput& input, const Sequences& sequences, const ScanRequest& request) {
  scan::check(input, sequences.tokens(), sequences.count());
  for (std::size_t i = 0; i < request.positions.size(); ++i) {
    MOLT_CHECK(request.positions[i] >= (i ? request.positions[i - 1] + 1 : 0) && request.positions[i] < sequences.tokens(),
               "selective_scan: position ", request.positions[i], " of ", sequences.tokens(),
               " tokens is outside or not in order");
  }
  if (!scan::has_kernel(input)) return selective_scan_composite(input, sequences, request);

  Tensors outputs = record(
      scan::pack(input), [&](Saved& saved) { return scan::forward(input, sequences, request, saved); },
      [sequences, has_final = request.final_state](const Tensors& saved, const Tensors& gradients,
                                                   const std::vector<bool>& needed) {
        const at::Tensor final_state = has_final ? gradients[1] : at::Tensor();
        SharedSums sums;
        Tensors results = scan::backward(scan::unpack(saved), saved[9], sequences, gradients[0], final_state, needed, {}, sums);
        sums.finish();
        return results;
      });
  ScanOutput output{.y = outputs[0], .final_state = {}, .states = {}};
  if (request.final_state) output.final_state = outputs[1];
  if (!request.positions.empty()) output.states = outputs.back().detach();
  return output;
}

at::Tensor selective_scan_update(const ScanInput& input, const at::Tensor& cache, const at::Tensor& slots,
                                 const at::Tensor& context_lens) {
  c10::AutoGradMode no_recording(false);
  const std::int64_t n = slots.numel();
  scan::check(input, n, n);
  const bool wide = slots.scalar_type() == at::kLong;
  MOLT_CHECK(wide || slots.scalar_type() == at::kInt, "selective_scan_update: slots are int32 or int64");
  MOLT_CHECK(
      cache.dim() == 3 && cache.is_contiguous() && cache.size(1) == input.dt.size(1) && cache.size(2) == input.A_log.size(1) &&
          cache.device() == input.x.device() && slots.device() == input.x.device() && slots.is_contiguous(),
      "selective_scan_update: cache ", cache.sizes(), " for d_inner ", input.dt.size(1), " and state ", input.A_log.size(1));
  if (context_lens.defined() && !(scan::has_kernel(input) && cache.is_cuda())) clear_begun(cache, slots, context_lens);
  if (!scan::has_kernel(input)) {
    ScanInput one = input;
    one.initial_state = cache.index_select(0, slots);
    const ScanOutput output =
        selective_scan_composite(one, Sequences::of(std::vector<std::int32_t>(n, 1)), {.final_state = true, .positions = {}});
    cache.index_copy_(0, slots.to(at::kLong), output.final_state.to(cache.scalar_type()));
    return output.y;
  }
  const c10::DeviceGuard guard(input.x.device());
  const scan::Prepared p = scan::prepare(input);
  MOLT_CHECK(cache.scalar_type() == at::typeMetaToScalarType(p.states.dtype()), "selective_scan_update: cache is ",
             cache.dtype());
  const at::Tensor y = at::empty({n, p.arguments.d_inner}, p.values);
  scan::Update update{.arguments = p.arguments,
                      .cache = mutable_data(cache),
                      .slots = data(slots),
                      .wide_slots = wide,
                      .contexts = context_lens.defined() ? context_lens.const_data_ptr<std::int32_t>() : nullptr};
  update.arguments.y = mutable_data(y);
  if (cache.is_cpu()) {
    for (std::int64_t i = 0; i < n; ++i) {
      const std::int64_t slot = wide ? slots.const_data_ptr<std::int64_t>()[i] : slots.const_data_ptr<std::int32_t>()[i];
      MOLT_CHECK(slot >= 0 && slot < cache.size(0), "selective_scan_update: slot ", slot, " of ", cache.size(0));
    }
  }
  using namespace scan;
  MOLT_SCAN_KERNEL(cache.device(), update, update);
  return y.to(input.x.scalar_type());
}

}  // namespace molt::ops
