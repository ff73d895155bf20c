// Drawing tokens from the logits of 32 sequences, vocabulary 131,072, bf16, on a GPU, in a CUDA graph as the engine draws.
//   molt_infer_bench --benchmark_filter=draw_gpu
// `of copy`: as if reading the logits once were all.
#include "support/cuda_rate.h"
#ifdef MOLT_CUDA
#include <cstring>

#include "infer/sampling.h"

namespace molt {
namespace draw_gpu_bench {

constexpr std::int64_t kRows = 32, kVocabulary = 131072;

template <class T>
at::Tensor room(const std::vector<T>& values) {
  const auto bytes = static_cast<std::int64_t>(values.size() * sizeof(T));
  const at::Tensor host = at::empty({bytes}, at::kByte);
  std::memcpy(host.mutable_data_ptr(), values.data(), static_cast<std::size_t>(bytes));
  return host.to(at::kCUDA);
}

void add(const std::string& name, const SamplingOptions& options) {
  register_graph_rate("draw_gpu/" + name, 2.0 * kRows * kVocabulary, 20, [options] {
    const at::Tensor logits = at::randn({kRows, kVocabulary}, at::TensorOptions(at::kCUDA).dtype(at::kBFloat16)) * 3;
    std::vector<Draw> draws;
    for (std::int64_t row = 0; row < kRows; ++row) draws.push_back(draw_of(options, row, row));
    return [logits, asked = room(draws), drawn = room(std::vector<Drawn>(kRows))] {
      sample_on_device({.bfloat16 = true,
                        .rows = kRows,
                        .vocabulary = kVocabulary,
                        .logits = logits.const_data_ptr(),
                        .draws = static_cast<const Draw*>(asked.const_data_ptr()),
                        .drawn = static_cast<Drawn*>(drawn.mutable_data_ptr())},
                       c10::cuda::getCurrentCUDAStream().stream());
    };
  });
}

const bool registered = on_cuda([] {
  add("greedy", {});
  add("temperature", {.temperature = 1});
  add("top_k", {.temperature = 1, .top_k = 50});
  add("top_p", {.temperature = 1, .top_p = 0.9});
  add("top_k_top_p", {.temperature = 1, .top_k = 50, .top_p = 0.9});
});

}  // namespace draw_gpu_bench
}  // namespace molt
#endif
