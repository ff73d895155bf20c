// RMSNorm on a GPU: one pass over memory. Forward keeps a row in registers from its sum of squares to what is written. In
// backward a block goes on from row to row, reads the next one into shared memory while it works on this one, and keeps its share
// of the weight's gradient in registers.
#include "ops/cuda_common.cuh"
#include "ops/rms_norm/rms_norm_cuda.h"

namespace molt::ops {

namespace rms_norm_cuda {

constexpr int kThreads = 1024, kEach = 16;  // of a block at most, and the values of a thread
static_assert(kCudaLargestNorm == kThreads * kEach);

// What a thread holds of its row: K packs of N values, a row's threads side by side.
template <int N>
struct Columns {
  static constexpr int K = kEach / N;
  int hidden;

  __device__ int at(int k) const { return static_cast<int>(k * blockDim.x + threadIdx.x) * N; }
  __device__ bool has(int k) const { return at(k) < hidden; }
  template <class T>
  __device__ void load(const T* row, cuda::Pack<T, N> (&to)[K]) const {
#pragma unroll
    for (int k = 0; k < K; ++k)
      if (has(k)) to[k] = cuda::load<N>(row + at(k));
  }
};

template <class T, int N>
__global__ void __launch_bounds__(kThreads) forward_kernel(const RmsNormCudaForward work) {
  constexpr int K = Columns<N>::K;
  __shared__ float shared[32];
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
  if (row >= work.rows) return;  // only where a warp is a row: there is no barrier
  const Columns<N> columns{static_cast<int>(work.hidden)};
  const std::int64_t begin = row * work.hidden;
  cuda::Pack<T, N> x[K], weight[K];
  columns.load(cuda::as<T>(work.x) + begin, x);
  if (work.residual) {
    cuda::Pack<T, N> residual[K];
    columns.load(cuda::as<T>(work.residual) + begin, residual);
#pragma unroll
    for (int k = 0; k < K; ++k) {
      if (!columns.has(k)) continue;
      float sum[N];
#pragma unroll
      for (int i = 0; i < N; ++i) sum[i] = x[k][i] + residual[k][i];
      x[k] = cuda::Pack<T, N>::of(sum);
      cuda::store(cuda::as<T>(work.sum) + begin + columns.at(k), x[k]);
    }
  }
  columns.load(cuda::as<T>(work.weight), weight);
  float squares = 0.0f;
#pragma unroll
  for (int k = 0; k < K; ++k) {
    if (!columns.has(k)) continue;
#pragma unroll
    for (int i = 0; i < N; ++i) squares += x[k][i] * x[k][i];
  }
  const float mean = cuda::block_sum(squares, shared) / static_cast<float>(work.hidden);
  const float inverse = rsqrtf(mean + work.epsilon);
  if (work.inverse && threadIdx.x == 0) work.inverse[row] = inverse;
#pragma unroll
  for (int k = 0; k < K; ++k) {
    if (!columns.has(k)) continue;
    float normed[N];
#pragma unroll
    for (int i = 0; i < N; ++i) normed[i] = x[k][i] * inverse * weight[k][i];
    cuda::store(cuda::as<T>(work.normed) + begin + columns.at(k), normed);
  }
}

// Copies a pack to shared memory, in the background where it has 16 bytes.
template <int N, class T>
__device__ void copy_pack(T* to, const T* from) {
  if constexpr (N * sizeof(T) == 16) {
    const auto address = static_cast<unsigned>(__cvta_generic_to_shared(to));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(from) : "memory");
  } else {
    cuda::store(to, cuda::load<N>(from));
  }
}

// The rows of a block in shared memory, kStages of them: of the sum, the gradient of normed and, if there is one, of the sum. A
// thread reads what it wrote itself, so that only its own copies are waited for.
template <class T, int N, int kStages>
struct Ahead {
  T* rows;
  Columns<N> columns;

  __device__ const T* row(int stage, int which) const { return rows + (stage * 3 + which) * columns.hidden; }
  __device__ void fetch(const RmsNormCudaBackward& work, int stage, std::int64_t row) const {
    const void* sources[3] = {work.sum, work.normed_gradient, work.sum_gradient};
#pragma unroll
    for (int which = 0; which < 3; ++which) {
      if (row >= work.rows || !sources[which]) continue;
      const T* from = cuda::as<T>(sources[which]) + row * columns.hidden;
      T* to = rows + (stage * 3 + which) * columns.hidden;
#pragma unroll
      for (int k = 0; k < columns.K; ++k)
        if (columns.has(k)) copy_pack<N>(to + columns.at(k), from + columns.at(k));
    }
    asm volatile("cp.async.commit_group;" ::: "memory");
  }
  // Waits until the oldest of kStages fetches is there.
  __device__ void wait() const { asm volatile("cp.async.wait_group %0;" ::"n"(kStages - 1) : "memory"); }
};

// Two stages need half of the shared memory and allow twice the registers: they are for rows of up to half the largest length.
// With u = gradient of normed * weight and n = sum * inverse: gradient = inverse * (u - n * mean(u * n)) + gradient of sum.
template <class T, int N, int kStages>
__global__ void __launch_bounds__(kThreads / kStages) backward_kernel(const RmsNormCudaBackward work) {
  constexpr int K = Columns<N>::K;
  extern __shared__ uint4 memory[];
  __shared__ float shared[2][32];
  const Columns<N> columns{static_cast<int>(work.hidden)};
  const Ahead<T, N, kStages> ahead{reinterpret_cast<T*>(memory) + threadIdx.y * kStages * 3 * work.hidden, columns};
  const std::int64_t part = static_cast<std::int64_t>(blockIdx.x) * blockDim.y + threadIdx.y, parts = gridDim.x * blockDim.y;
  cuda::Pack<T, N> weight[K];
  columns.load(cuda::as<T>(work.weight), weight);
  float share[K][N] = {};
  if (kStages > 1) ahead.fetch(work, 0, part);
  float next_inverse = part < work.rows ? work.inverse[part] : 0.0f;
  int stage = 0, turn = 0;  // turn: what one row's sum reads, the next one's may not overwrite
  for (std::int64_t row = part; row < work.rows; row += parts, turn ^= 1, stage = (stage + 1) % kStages) {
    ahead.fetch(work, (stage + kStages - 1) % kStages, row + (kStages - 1) * parts);
    const float inverse = next_inverse;
    if (row + parts < work.rows) next_inverse = work.inverse[row + parts];
    ahead.wait();
    float dot = 0.0f;
#pragma unroll
    for (int k = 0; k < K; ++k) {
      if (!columns.has(k)) continue;
      const auto sum = cuda::load<N>(ahead.row(stage, 0) + columns.at(k)),
                 normed = cuda::load<N>(ahead.row(stage, 1) + columns.at(k));
#pragma unroll
      for (int i = 0; i < N; ++i) {
        const float product = normed[i] * (sum[i] * inverse);
        share[k][i] += product;
        dot += product * weight[k][i];
      }
    }
    const float mean = cuda::block_sum(dot, shared[turn]) / static_cast<float>(work.hidden);
#pragma unroll
    for (int k = 0; k < K; ++k) {
      if (!columns.has(k)) continue;
      const auto sum = cuda::load<N>(ahead.row(stage, 0) + columns.at(k)),
                 normed = cuda::load<N>(ahead.row(stage, 1) + columns.at(k));
      float gradient[N];
#pragma unroll
      for (int i = 0; i < N; ++i) gradient[i] = inverse * (normed[i] * weight[k][i] - sum[i] * inverse * mean);
      if (work.sum_gradient) {
        const auto added = cuda::load<N>(ahead.row(stage, 2) + columns.at(k));
#pragma unroll
        for (int i = 0; i < N; ++i) gradient[i] += added[i];
      }
      cuda::store(cuda::as<T>(work.gradient) + row * work.hidden + columns.at(k), gradient);
    }
  }
  if (!work.weight_shares) return;
#pragma unroll
  for (int k = 0; k < K; ++k)
    if (columns.has(k)) cuda::store(work.weight_shares + part * work.hidden + columns.at(k), share[k]);
}

// A block's threads: a row's side by side and, where a warp is enough for one, several rows.
dim3 block_for(std::int64_t hidden) {
  const auto warps = static_cast<unsigned>(cuda::divide_up(hidden, 32 * kEach));
  return warps > 1 ? dim3(32 * warps, 1) : dim3(32, 4);
}

// Enough to keep memory busy, few enough for long runs of rows.
std::int64_t backward_blocks(std::int64_t rows, std::int64_t hidden) {
  const dim3 block = block_for(hidden);
  const std::int64_t threads = block.x * block.y,
                     each = std::min<std::int64_t>(cuda::divide_up(640, threads), kThreads / threads);
  return std::min(cuda::divide_up(rows, block.y), each * cuda::multiprocessors());
}

template <class T, int N, int kStages>
void launch_backward(const RmsNormCudaBackward& work, cudaStream_t stream) {
  const dim3 block = block_for(work.hidden);
  const auto bytes = static_cast<unsigned>(block.y * kStages * 3 * work.hidden * sizeof(T));
  const auto kernel = backward_kernel<T, N, kStages>;
  if (bytes > 48 * 1024) cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
  kernel<<<static_cast<unsigned>(backward_blocks(work.rows, work.hidden)), block, bytes, stream>>>(work);
}

bool packs_fit(std::int64_t hidden, int size, std::initializer_list<const void*> pointers) {
  bool fit = hidden % size == 0;
  for (const void* pointer : pointers) fit = fit && cuda::aligned(pointer);
  return fit;
}

}  // namespace rms_norm_cuda

void cuda_rms_norm_forward(const RmsNormCudaForward& work, void* stream) {
  using namespace rms_norm_cuda;
  if (work.rows == 0) return;
  const dim3 block = block_for(work.hidden);
  const auto blocks = static_cast<unsigned>(cuda::divide_up(work.rows, block.y));
  cuda::with_type(work.type, [&]<class T>() {
    constexpr int N = cuda::kPack<T>;
    const bool packs = packs_fit(work.hidden, N, {work.x, work.residual, work.weight, work.sum, work.normed});
    const auto kernel = packs ? forward_kernel<T, N> : forward_kernel<T, 1>;
    kernel<<<blocks, block, 0, static_cast<cudaStream_t>(stream)>>>(work);
  });
  cuda::check_launch("rms_norm");
}

std::int64_t cuda_rms_norm_parts(std::int64_t rows, std::int64_t hidden) {
  return rms_norm_cuda::backward_blocks(rows, hidden) * rms_norm_cuda::block_for(hidden).y;
}

void cuda_rms_norm_backward(const RmsNormCudaBackward& work, void* stream) {
  using namespace rms_norm_cuda;
  if (work.rows == 0) return;
  cuda::with_type(work.type, [&]<class T>() {
    constexpr int N = cuda::kPack<T>;
    const auto pointers = {work.sum, work.weight, work.normed_gradient, work.sum_gradient,
                           static_cast<const void*>(work.gradient)};
    const bool packs = packs_fit(work.hidden, N, pointers), short_rows = work.hidden <= kCudaLargestNorm / 2;
    const auto launch = packs ? short_rows ? launch_backward<T, N, 2> : launch_backward<T, N, 1> : launch_backward<T, 1, 1>;
    launch(work, static_cast<cudaStream_t>(stream));
  });
  cuda::check_launch("rms_norm_backward");
}

}  // namespace molt::ops
