#include "ops/rotary/rotary.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <c10/core/DeviceGuard.h>

#include "base/error.h"
#include "ops/autograd.h"
#include "ops/cuda_dispatch.h"
#include "ops/new_tensor.h"
#include "ops/rotary/rotary_kernels.h"

namespace molt::ops {

namespace rotary_operation {

at::Tensor rows_of(const at::Tensor& tensor) {
  return !tensor.defined() || tensor.stride(-1) == 1 || tensor.numel() == 0 ? tensor : tensor.contiguous();
}

RotaryWork work_with(const at::Tensor& like, const RotaryTable& table, std::int64_t tokens, std::int64_t head_size, bool back) {
  RotaryWork work;
  work.type = data_type(like);
  work.tokens = tokens, work.head_size = head_size, work.back = back;
  if (!table.cos.defined()) return work;
  work.cos = table.cos.const_data_ptr<float>(), work.sin = table.sin.const_data_ptr<float>();
  work.half = table.cos.size(1);
  return work;
}

void run(const RotaryWork& work, [[maybe_unused]] at::Device device) {
#ifdef MOLT_CUDA
  if (device.is_cuda()) return cuda_rotary(work, cuda_stream());
#endif
  cpu_rotary(work);
}

at::Tensor turn(const at::Tensor& x, const RotaryTable& table, bool back) {
  const c10::DeviceGuard guard(x.device());
  const at::Tensor rows = rows_of(x);
  const std::int64_t tokens = x.size(0), heads = x.size(1), head_size = x.size(2);
  at::Tensor out = at::empty({tokens, heads, head_size}, x.options());
  RotaryWork work = work_with(x, table, tokens, head_size, back);
  work.parts[0] = {data(rows), rows.stride(0), rows.stride(1), mutable_data(out), heads * head_size, heads, true};
  run(work, x.device());
  return out;
}

// q, k and v of rows that hold them side by side.
Tensors split(const at::Tensor& qkv, std::int64_t heads, std::int64_t kv_heads, const RotaryTable& table) {
  const c10::DeviceGuard guard(qkv.device());
  const at::Tensor rows = rows_of(qkv);
  const std::int64_t tokens = qkv.size(0), head_size = qkv.size(1) / (heads + 2 * kv_heads);
  RotaryWork work = work_with(qkv, table, tokens, head_size, false);
  Tensors out;
  std::int64_t column = 0;
  for (const std::int64_t count : {heads, kv_heads, kv_heads}) {
    const bool turns = table.cos.defined() && out.size() < 2;
    const at::Tensor from = rows.narrow(1, column, count * head_size);
    out.push_back(at::empty({tokens, count, head_size}, qkv.options()));
    work.parts[out.size() - 1] = {data(from),        rows.stride(0), head_size, mutable_data(out.back()),
                                  count * head_size, count,          turns};
    column += count * head_size;
  }
  run(work, qkv.device());
  return out;
}

// The gradient of qkv as a whole from those of q, k and v.
at::Tensor join(const Tensors& gradients, std::int64_t tokens, std::int64_t heads, std::int64_t kv_heads, std::int64_t head_size,
                const RotaryTable& table, const at::TensorOptions& options) {
  const c10::DeviceGuard guard(options.device());
  const std::int64_t columns = (heads + 2 * kv_heads) * head_size;
  const at::Tensor out = at::empty({tokens, columns}, options);
  RotaryWork work = work_with(out, table, tokens, head_size, true);
  Tensors kept;
  std::int64_t column = 0;
  for (const std::int64_t count : {heads, kv_heads, kv_heads}) {
    RotaryPart& part = work.parts[kept.size()];
    const at::Tensor from = rows_of(gradients[kept.size()]), to = out.narrow(1, column, count * head_size);
    if (from.defined()) part = {.from = data(from), .from_stride = from.stride(0), .from_head_stride = from.stride(1)};
    part.to = mutable_data(to), part.to_stride = columns;
    part.heads = count, part.turns = table.cos.defined() && kept.size() < 2;
    kept.push_back(from);
    column += count * head_size;
  }
  run(work, options.device());
  return out;
}

bool has_kernel(const at::Tensor& x) {
  return has_cuda_kernel(x) || (x.is_cpu() && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kDouble));
}

void check_table(const RotaryTable& table, std::int64_t tokens, std::int64_t head_size) {
  MOLT_CHECK(table.cos.dim() == 2 && table.cos.size(0) == tokens && 2 * table.cos.size(1) <= head_size &&
                 table.sin.sizes() == table.cos.sizes() && table.cos.scalar_type() == at::kFloat && table.cos.is_contiguous() &&
                 table.sin.is_contiguous(),
             "rotary: ", tokens, " tokens, head size ", head_size, ", table ", table.cos.sizes());
}

}  // namespace rotary_operation

at::Tensor rotary_frequencies(std::int64_t rotary, double theta, at::Device device) {
  const at::Tensor exponents = at::arange(0, rotary, 2, at::kLong).to(at::kFloat).div_(static_cast<double>(rotary));
  return at::pow(at::Scalar(theta), exponents).reciprocal_().to(device);
}

RotaryTable rotary_table(const Rotary& rotary, const at::Tensor& given) {
  const at::Tensor& frequencies = rotary.inverse_frequencies;
  MOLT_CHECK(frequencies.defined() && frequencies.dim() == 1 && frequencies.scalar_type() == at::kFloat && given.dim() == 1 &&
                 frequencies.device() == given.device(),
             "rotary_table: positions ", given.sizes(), " on ", given.device());
  const c10::DeviceGuard guard(given.device());
  const std::int64_t tokens = given.size(0), half = frequencies.size(0);
  const at::Tensor positions = given.scalar_type() == at::kInt ? given.contiguous() : given.to(at::kLong).contiguous();
  const at::Tensor speeds = frequencies.contiguous();
  RotaryTable table{new_tensor({tokens, half}, speeds), new_tensor({tokens, half}, speeds)};
  const RotaryTableWork work{.positions = data(positions),
                             .wide_positions = positions.scalar_type() == at::kLong,
                             .frequencies = speeds.const_data_ptr<float>(),
                             .factor = static_cast<float>(rotary.factor),
                             .cos = table.cos.mutable_data_ptr<float>(),
                             .sin = table.sin.mutable_data_ptr<float>(),
                             .tokens = tokens,
                             .half = half};
#ifdef MOLT_CUDA
  if (given.is_cuda()) {
    cuda_rotary_table(work, cuda_stream());
    return table;
  }
#endif
  MOLT_CHECK(given.is_cpu(), "rotary_table has no kernel for ", given.device());
  cpu_rotary_table(work);
  return table;
}

at::Tensor rotary(const at::Tensor& x, const RotaryTable& table) {
  MOLT_CHECK(x.dim() == 3, "rotary: x ", x.sizes());
  rotary_operation::check_table(table, x.size(0), x.size(2));
  if (!rotary_operation::has_kernel(x)) return rotary_composite(x, table);
  return record(
      {x},
      [&](Saved& saved) -> Tensors {
        saved.tensors = {table.cos, table.sin};
        return {rotary_operation::turn(x, table, false)};
      },
      [](const Tensors& saved, const Tensors& gradients, const std::vector<bool>&) -> Tensors {
        if (!gradients[0].defined()) return {at::Tensor()};
        return {rotary_operation::turn(gradients[0], {saved[0], saved[1]}, true)};
      })[0];
}

QueryKeyValue rotary_qkv(const at::Tensor& qkv, std::int64_t heads, std::int64_t kv_heads, const RotaryTable& table) {
  MOLT_CHECK(qkv.dim() == 2 && heads > 0 && kv_heads > 0 && qkv.size(1) % (heads + 2 * kv_heads) == 0, "rotary_qkv: qkv ",
             qkv.sizes(), ", ", heads, " heads, ", kv_heads, " kv heads");
  const std::int64_t tokens = qkv.size(0), head_size = qkv.size(1) / (heads + 2 * kv_heads);
  const bool turns = table.cos.defined();
  if (turns) rotary_operation::check_table(table, tokens, head_size);
  if (!rotary_operation::has_kernel(qkv)) {
    const auto parts = qkv.view({tokens, heads + 2 * kv_heads, head_size}).split_with_sizes({heads, kv_heads, kv_heads}, 1);
    if (!turns) return {parts[0], parts[1], parts[2]};
    return {rotary_composite(parts[0], table), rotary_composite(parts[1], table), parts[2]};
  }
  Tensors out = record(
      {qkv},
      [&](Saved& saved) -> Tensors {
        saved.tensors = {table.cos, table.sin};
        return rotary_operation::split(qkv, heads, kv_heads, table);
      },
      [=, options = qkv.options()](const Tensors& saved, const Tensors& gradients, const std::vector<bool>&) -> Tensors {
        return {rotary_operation::join(gradients, tokens, heads, kv_heads, head_size, {saved[0], saved[1]}, options)};
      });
  return {std::move(out[0]), std::move(out[1]), std::move(out[2])};
}

at::Tensor rotary_composite(const at::Tensor& x, const RotaryTable& table) {
  const std::int64_t half = table.cos.size(1), head_size = x.size(2);
  const at::Tensor cos = table.cos.unsqueeze(1), sin = table.sin.unsqueeze(1);
  const at::Tensor wide = x.scalar_type() == at::kDouble ? x : x.to(at::kFloat);
  const at::Tensor a = wide.narrow(2, 0, half), b = wide.narrow(2, half, half);
  const at::Tensor turned = at::cat({a * cos - b * sin, b * cos + a * sin, wide.narrow(2, 2 * half, head_size - 2 * half)}, 2);
  return turned.to(x.scalar_type());
}

}  // namespace molt::ops
