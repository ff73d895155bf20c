// What a step of generation does on a GPU, at the shapes of the published 15B model: updates of Mamba layers, attention over the
// cache, products of few rows beside LibTorch's. Drawing tokens is in bench/infer. Each is timed in a CUDA graph, as the engine
// calls it, and takes turns with others' states, keys or weights, so that none is found in the L2 cache.
//   molt_ops_bench --benchmark_filter=decode_gpu
#include "support/cuda_rate.h"
#ifdef MOLT_CUDA
#include <c10/core/InferenceMode.h>

#include <cmath>

#include "ops/attention/attention.h"
#include "ops/mamba_update/mamba_update.h"
#include "ops/skinny_linear/skinny_linear.h"

namespace molt::ops {
namespace decode_gpu_bench {

at::TensorOptions on_gpu(at::ScalarType dtype) {
  return at::TensorOptions(at::kCUDA).dtype(dtype);
}

// So many turns that what they read, `bytes` each, is twice the L2 cache of an H200.
int turns(double bytes) {
  return static_cast<int>(std::clamp(1e8 / bytes, 2.0, 400.0));
}

// `prepare` returns the work of turn i.
void add(const std::string& name, double bytes, const std::function<std::function<void(int)>(int turns)>& prepare) {
  const int calls = turns(bytes);
  register_graph_rate("decode_gpu/" + name, bytes, calls, [=] {
    return [work = prepare(calls), calls, turn = 0]() mutable {
      const c10::InferenceMode no_gradients;
      work(turn++ % calls);
    };
  });
}

// Bytes are those of the states, read and written.
void add_mamba_update(std::int64_t n) {
  constexpr std::int64_t d_inner = 4096, d_xb = 1024, size = 16, rank = 16, width = 4;
  add("mamba_update/" + std::to_string(n), 2.0 * static_cast<double>(n * d_inner * size * 4), [=](int turns) {
    const auto bf16 = on_gpu(at::kBFloat16), fp32 = on_gpu(at::kFloat);
    const at::Tensor zxBC = at::randn({n, 2 * d_inner + 2 * d_xb}, bf16), low = at::randn({n, rank}, bf16),
                     dt_weight = at::randn({d_inner, rank}, bf16);
    ConvInput conv;
    conv.x = zxBC.narrow(1, d_inner, d_xb), conv.weight = at::randn({d_inner, width}, bf16);
    conv.bias = at::randn({d_inner}, bf16);
    conv.repeat = d_inner / d_xb, conv.group_size = size;
    const ScanInput scan{.x = {},
                         .dt = {},
                         .dt_bias = at::randn({d_inner}, bf16),
                         .A_log = at::rand({d_inner, size}, fp32),
                         .B = zxBC.narrow(1, d_inner + d_xb, d_xb),
                         .C = zxBC.narrow(1, d_inner + 2 * d_xb, d_inner),
                         .D = at::ones({d_inner}, fp32),
                         .z = zxBC.narrow(1, 0, d_inner),
                         .initial_state = {}};
    std::vector<MambaCache> caches;
    for (int i = 0; i < turns; ++i)
      caches.push_back({.windows = at::zeros({n, d_xb, width - 1}, bf16),
                        .states = at::zeros({n, d_inner, size}, fp32),
                        .slots = at::arange(n, on_gpu(at::kLong)),
                        .context_lens = at::ones({n}, on_gpu(at::kInt))});
    return [=](int turn) { mamba_update(conv, scan, low, dt_weight, caches[static_cast<std::size_t>(turn)]); };
  });
}

// Bytes are those of the n sequences' keys and values.
void add_attention(std::int64_t n, std::int64_t context) {
  constexpr std::int64_t heads = 32, kv_heads = 8, head_size = 128;
  const double bytes = 2.0 * 2 * static_cast<double>(n * context * kv_heads * head_size);
  add("attention/" + std::to_string(n) + "x" + std::to_string(context), bytes, [=](int turns) {
    const at::Tensor caches = at::randn({turns, 2, n, context, kv_heads, head_size}, on_gpu(at::kBFloat16));
    const at::Tensor q = at::randn({n, heads, head_size}, on_gpu(at::kBFloat16));
    const auto lens =
        std::make_shared<std::vector<std::int32_t>>(static_cast<std::size_t>(n), static_cast<std::int32_t>(context - 1));
    const PagedContext paged{at::tensor(*lens, at::kInt).to(at::kCUDA), *lens, at::arange(n, on_gpu(at::kInt)).view({n, 1})};
    const Sequences fresh = Sequences::of(std::vector<std::int32_t>(static_cast<std::size_t>(n), 1), at::kCUDA);
    return [=](int turn) {
      static_cast<void>(lens);  // paged refers to it
      attention_with_cache(q, caches[turn][0], caches[turn][1], fresh, paged, 1 / std::sqrt(static_cast<double>(head_size)));
    };
  });
}

using Product = at::Tensor (*)(const at::Tensor& x, const at::Tensor& weight);

at::Tensor by_molt(const at::Tensor& x, const at::Tensor& weight) {
  return skinny_linear(x, weight);
}
at::Tensor with_swiglu(const at::Tensor& x, const at::Tensor& weight) {
  return skinny_swiglu(x, weight);
}
at::Tensor by_libtorch(const at::Tensor& x, const at::Tensor& weight) {
  return at::mm(x, weight.t());
}

// Bytes are those of the weight.
void add_product(const std::string& name, Product product, std::int64_t rows, std::int64_t in, std::int64_t out) {
  const std::string shape = "/" + std::to_string(rows) + "x" + std::to_string(in) + "x" + std::to_string(out);
  add(name + shape, 2.0 * static_cast<double>(in * out), [=](int turns) {
    const at::Tensor x = at::randn({rows, in}, on_gpu(at::kBFloat16)),
                     weights = at::randn({turns, out, in}, on_gpu(at::kBFloat16));
    return [=](int turn) { product(x, weights[turn]); };
  });
}

const bool registered = on_cuda([] {
  for (const std::int64_t n : {1, 32, 256}) add_mamba_update(n);
  add_attention(1, 8192), add_attention(1, 16384), add_attention(8, 8192), add_attention(32, 8192), add_attention(256, 1024);
  for (const std::int64_t rows : {1, 8}) {
    add_product("swiglu", with_swiglu, rows, 5120, 28672);
    for (const auto& [in, out] : {std::pair{5120, 28672}, {14336, 5120}, {5120, 6144}, {5120, 131072}}) {
      add_product("product", by_molt, rows, in, out);
      add_product("product_libtorch", by_libtorch, rows, in, out);
    }
  }
});

}  // namespace decode_gpu_bench
}  // namespace molt::ops
#endif
