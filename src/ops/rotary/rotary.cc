#include "ops/rotary/rotary.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "ops/autograd.h"
#include "ops/lanes.h"

namespace molt::ops {

namespace rotary_cpu {

// Turns the heads of one token: pairs (first half, second half) by (cos, sin), or back with direction -1; copies what lies
// beyond.
template <class T>
MOLT_INLINE void turn_heads(const T* from, std::int64_t head_stride, T* to, std::int64_t heads, std::int64_t head_size,
                            const float* cos, const float* sin, std::int64_t half, T direction) {
  for (std::int64_t head = 0; head < heads; ++head, from += head_stride, to += head_size) {
#pragma omp simd
    for (std::int64_t i = 0; i < half; ++i) {
      const T a = from[i], b = from[i + half], c = T(cos[i]), s = direction * T(sin[i]);
      to[i] = a * c - b * s;
      to[i + half] = b * c + a * s;
    }
    if (2 * half < head_size) std::memcpy(to + 2 * half, from + 2 * half, (head_size - 2 * half) * sizeof(T));
  }
}

// Heads of a token to turn or, with half = 0, to copy.
template <class T>
struct Part {
  const T* from;  // null: zeros
  std::int64_t token_stride, head_stride;
  T* to;
  std::int64_t to_stride, heads;
  std::int64_t half;
};

template <class T>
struct Work {
  Part<T> parts[3];
  int count;
  std::int64_t head_size;
  const float *cos, *sin;
  std::int64_t table_stride;
  T direction;  // 1 forward, -1 backward: the transposed rotation
};

template <class T>
MOLT_INLINE void turn_tokens(const Work<T>& work, std::int64_t begin, std::int64_t end) {
  for (std::int64_t token = begin; token < end; ++token) {
    const float *cos = work.cos + token * work.table_stride, *sin = work.sin + token * work.table_stride;
    for (int i = 0; i < work.count; ++i) {
      const Part<T>& part = work.parts[i];
      T* to = part.to + token * part.to_stride;
      if (!part.from) {
        std::fill_n(to, part.heads * work.head_size, T(0));
        continue;
      }
      turn_heads(part.from + token * part.token_stride, part.head_stride, to, part.heads, work.head_size, cos, sin, part.half,
                 work.direction);
    }
  }
}

MOLT_CLONES void tokens(const Work<float>& work, std::int64_t begin, std::int64_t end) {
  turn_tokens(work, begin, end);
}
MOLT_CLONES void tokens(const Work<double>& work, std::int64_t begin, std::int64_t end) {
  turn_tokens(work, begin, end);
}

template <class T>
void run(const Work<T>& work, std::int64_t count) {
  std::int64_t heads = 0;
  for (int i = 0; i < work.count; ++i) heads += work.parts[i].heads;
  const std::int64_t grain = std::max<std::int64_t>(1, 16384 / std::max<std::int64_t>(heads * work.head_size, 1));
  at::parallel_for(0, count, grain, [&](std::int64_t begin, std::int64_t end) { tokens(work, begin, end); });
}

// The part of a token's row that a (tokens, heads, head_size) tensor holds; `half` 0 copies.
template <class T>
Part<T> part(const at::Tensor& from, std::int64_t heads, T* to, std::int64_t to_stride, std::int64_t half) {
  if (!from.defined()) return {nullptr, 0, 0, to, to_stride, heads, half};
  return {from.const_data_ptr<T>(), from.stride(0), from.stride(1), to, to_stride, heads, half};
}

at::Tensor rows_of(const at::Tensor& tensor) {
  return !tensor.defined() || tensor.stride(-1) == 1 || tensor.numel() == 0 ? tensor : tensor.contiguous();
}

template <class T>
Work<T> work_with(const RotaryTable& table, std::int64_t head_size, T direction) {
  Work<T> work{};
  work.head_size = head_size;
  work.direction = direction;
  if (table.cos.defined()) {
    work.cos = table.cos.const_data_ptr<float>();
    work.sin = table.sin.const_data_ptr<float>();
    work.table_stride = table.cos.size(1);
  }
  return work;
}

template <class T>
at::Tensor turn(const at::Tensor& x, const RotaryTable& table, T direction) {
  const at::Tensor rows = rows_of(x);
  const std::int64_t heads = x.size(1), head_size = x.size(2);
  at::Tensor out = at::empty({x.size(0), heads, head_size}, x.options());
  Work<T> work = work_with(table, head_size, direction);
  work.parts[work.count++] = part(rows, heads, out.mutable_data_ptr<T>(), heads * head_size, table.cos.size(1));
  run(work, x.size(0));
  return out;
}

template <class T>
Tensors split(const at::Tensor& qkv, std::int64_t heads, std::int64_t kv_heads, const RotaryTable& table) {
  const at::Tensor rows = rows_of(qkv);
  const std::int64_t tokens = qkv.size(0), head_size = qkv.size(1) / (heads + 2 * kv_heads);
  const std::int64_t half = table.cos.defined() ? table.cos.size(1) : 0;
  Work<T> work = work_with(table, head_size, T(1));
  Tensors out;
  const T* from = rows.const_data_ptr<T>();
  for (const std::int64_t count : {heads, kv_heads, kv_heads}) {
    out.push_back(at::empty({tokens, count, head_size}, qkv.options()));
    work.parts[work.count++] = {from,  rows.stride(0),           head_size, out.back().mutable_data_ptr<T>(), count * head_size,
                                count, out.size() < 3 ? half : 0};
    from += count * head_size;
  }
  run(work, tokens);
  return out;
}

// The gradient of qkv as a whole from those of q, k and v.
template <class T>
at::Tensor join(const Tensors& gradients, std::int64_t tokens, std::int64_t heads, std::int64_t kv_heads, std::int64_t head_size,
                const RotaryTable& table, const at::TensorOptions& options) {
  const std::int64_t columns = (heads + 2 * kv_heads) * head_size, half = table.cos.defined() ? table.cos.size(1) : 0;
  at::Tensor out = at::empty({tokens, columns}, options);
  Work<T> work = work_with(table, head_size, T(-1));
  Tensors kept;
  T* to = out.mutable_data_ptr<T>();
  for (const std::int64_t count : {heads, kv_heads, kv_heads}) {
    kept.push_back(rows_of(gradients[work.count]));
    work.parts[work.count] = part(kept.back(), count, to, columns, work.count < 2 ? half : 0);
    ++work.count;
    to += count * head_size;
  }
  run(work, tokens);
  return out;
}

bool has_kernel(const at::Tensor& x) {
  return x.is_cpu() && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kDouble);
}

void check_table(const RotaryTable& table, std::int64_t tokens, std::int64_t head_size) {
  MOLT_CHECK(table.cos.dim() == 2 && table.cos.size(0) == tokens && 2 * table.cos.size(1) <= head_size &&
                 table.sin.sizes() == table.cos.sizes() && table.cos.scalar_type() == at::kFloat && table.cos.is_contiguous() &&
                 table.sin.is_contiguous(),
             "rotary: ", tokens, " tokens, head size ", head_size, ", table ", table.cos.sizes());
}

}  // namespace rotary_cpu

at::Tensor rotary_frequencies(std::int64_t rotary, double theta, at::Device device) {
  const at::Tensor exponents = at::arange(0, rotary, 2, at::kLong).to(at::kFloat).div_(static_cast<double>(rotary));
  return at::pow(at::Scalar(theta), exponents).reciprocal_().to(device);
}

RotaryTable rotary_table(const Rotary& rotary, const at::Tensor& positions) {
  const at::Tensor& frequencies = rotary.inverse_frequencies;
  MOLT_CHECK(frequencies.defined() && frequencies.dim() == 1 && frequencies.scalar_type() == at::kFloat && positions.dim() == 1,
             "rotary_table: positions ", positions.sizes());
  if (!positions.is_cpu()) {
    const at::Tensor angles = positions.to(at::kFloat).unsqueeze(1) * frequencies;
    RotaryTable table{angles.cos(), angles.sin()};
    if (rotary.factor != 1) {
      table.cos.mul_(rotary.factor);
      table.sin.mul_(rotary.factor);
    }
    return table;
  }
  const std::int64_t tokens = positions.size(0), half = frequencies.size(0);
  const at::Tensor places = positions.to(at::kLong).contiguous(), speeds = frequencies.contiguous();
  RotaryTable table{at::empty({tokens, half}, at::kFloat), at::empty({tokens, half}, at::kFloat)};
  const auto* position = places.const_data_ptr<std::int64_t>();
  const float *speed = speeds.const_data_ptr<float>(), factor = static_cast<float>(rotary.factor);
  float *cos = table.cos.mutable_data_ptr<float>(), *sin = table.sin.mutable_data_ptr<float>();
  at::parallel_for(0, tokens, std::max<std::int64_t>(1, 2048 / std::max<std::int64_t>(half, 1)), [&](auto begin, auto end) {
    for (std::int64_t i = begin * half; i < end * half; ++i) {
      const float angle = static_cast<float>(position[i / half]) * speed[i % half];
      cos[i] = std::cos(angle) * factor;
      sin[i] = std::sin(angle) * factor;
    }
  });
  return table;
}

at::Tensor rotary(const at::Tensor& x, const RotaryTable& table) {
  MOLT_CHECK(x.dim() == 3, "rotary: x ", x.sizes());
  rotary_cpu::check_table(table, x.size(0), x.size(2));
  if (!rotary_cpu::has_kernel(x)) return rotary_composite(x, table);
  const bool is_float = x.scalar_type() == at::kFloat;
  const auto turn = [is_float](const at::Tensor& tensor, const RotaryTable& by, int direction) -> at::Tensor {
    return is_float ? rotary_cpu::turn<float>(tensor, by, static_cast<float>(direction))
                    : rotary_cpu::turn<double>(tensor, by, static_cast<double>(direction));
  };
  return record(
      {x},
      [&](Saved& saved) -> Tensors {
        saved.tensors = {table.cos, table.sin};
        return {turn(x, table, 1)};
      },
      [turn](const Tensors& saved, const Tensors& gradients, const std::vector<bool>&) -> Tensors {
        if (!gradients[0].defined()) return {at::Tensor()};
        return {turn(gradients[0], {saved[0], saved[1]}, -1)};
      })[0];
}

QueryKeyValue rotary_qkv(const at::Tensor& qkv, std::int64_t heads, std::int64_t kv_heads, const RotaryTable& table) {
  MOLT_CHECK(qkv.dim() == 2 && heads > 0 && kv_heads > 0 && qkv.size(1) % (heads + 2 * kv_heads) == 0, "rotary_qkv: qkv ",
             qkv.sizes(), ", ", heads, " heads, ", kv_heads, " kv heads");
  const std::int64_t tokens = qkv.size(0), head_size = qkv.size(1) / (heads + 2 * kv_heads);
  const bool turns = table.cos.defined();
  if (turns) rotary_cpu::check_table(table, tokens, head_size);
  if (!rotary_cpu::has_kernel(qkv)) {
    const auto parts = qkv.view({tokens, heads + 2 * kv_heads, head_size}).split_with_sizes({heads, kv_heads, kv_heads}, 1);
    if (!turns) return {parts[0], parts[1], parts[2]};
    return {rotary_composite(parts[0], table), rotary_composite(parts[1], table), parts[2]};
  }
  const bool is_float = qkv.scalar_type() == at::kFloat;
  Tensors out = record(
      {qkv},
      [&](Saved& saved) -> Tensors {
        saved.tensors = {table.cos, table.sin};
        return is_float ? rotary_cpu::split<float>(qkv, heads, kv_heads, table)
                        : rotary_cpu::split<double>(qkv, heads, kv_heads, table);
      },
      [=, options = qkv.options()](const Tensors& saved, const Tensors& gradients, const std::vector<bool>&) -> Tensors {
        const RotaryTable by{saved[0], saved[1]};
        return {is_float ? rotary_cpu::join<float>(gradients, tokens, heads, kv_heads, head_size, by, options)
                         : rotary_cpu::join<double>(gradients, tokens, heads, kv_heads, head_size, by, options)};
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
