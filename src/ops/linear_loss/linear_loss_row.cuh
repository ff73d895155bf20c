// A row of logits on a GPU, shared out to the threads of a block or of a cluster of blocks: what a thread keeps of it, and sums
// over all of it, always in the same order.
#pragma once
#include <cooperative_groups.h>
#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>

namespace molt::ops {

namespace loss_cuda {

constexpr int kThreads = 512, kWarps = kThreads / 32;
constexpr unsigned kWarp = 0xffffffffu;
// Stands for the logits beyond a row's end: its power is nothing, and student and teacher agree on it.
constexpr float kNothing = -1e30f;

__device__ inline float power_of_two(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ inline double power_of_two(double x) {
  return exp2(x);
}

// Over the lanes of a warp, in an order that is always the same.
template <class Sum>
__device__ Sum largest_of_warp(Sum value) {
  for (int offset = 16; offset > 0; offset /= 2) value = max(value, __shfl_xor_sync(kWarp, value, offset));
  return value;
}
template <class Sum>
__device__ Sum sum_of_warp(Sum value) {
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(kWarp, value, offset);
  return value;
}

// Sums over logits x of 2^(x - top) and of 2^(x - top) * difference.
template <class Sum>
struct Softmax {
  Sum top = kNothing, total = 0, difference = 0;

  __device__ void raise(Sum to) {
    if (to <= top) return;
    const Sum factor = power_of_two(top - to);
    top = to, total *= factor, difference *= factor;
  }
  __device__ void over_warp() {
    raise(largest_of_warp(top));
    total = sum_of_warp(total), difference = sum_of_warp(difference);
  }
  __device__ Sum log_total() const { return top + log2(total); }
  __device__ Sum mean() const { return difference / total; }
};

// Of a row, or a part of it. Differences are student's - teacher's logits.
template <class Sum>
struct Sums {
  Softmax<Sum> student, teacher, plain;  // plain: the student's at temperature 1, where the mix's temperature is another

  __device__ void over_warp() { student.over_warp(), teacher.over_warp(), plain.over_warp(); }
};

template <class T, int kWidth>
struct alignas(sizeof(T) * kWidth) Pack {
  T values[kWidth];
};

// A thread's loads under way, of one row: packs i, i + kThreads, …, padded behind `end`.
template <class T, int kWidth, int kCount>
struct Batch {
  Pack<T, kWidth> packs[kCount];

  __device__ const Pack<T, kWidth>& operator[](int b) const { return packs[b]; }
  __device__ void load(const Pack<T, kWidth>* row, std::int64_t i, std::int64_t end) {
#pragma unroll
    for (int b = 0; b < kCount; ++b) {
      if (i + b * kThreads < end) {
        packs[b] = row[i + b * kThreads];
      } else {
#pragma unroll
        for (int k = 0; k < kWidth; ++k) packs[b].values[k] = static_cast<T>(kNothing);
      }
    }
  }
  __device__ void wait() const {}
};

// The same in (dynamic) shared memory, where each thread reads only what it loaded itself, after wait().
template <class T, int kWidth, int kCount>
struct SharedBatch {
  static_assert(sizeof(Pack<T, kWidth>) == 16);
  static constexpr int kBytes = kThreads * kCount * 16;  // of a block

  __device__ static Pack<T, kWidth>& pack(int b) {
    extern __shared__ uint4 memory[];
    return reinterpret_cast<Pack<T, kWidth>*>(memory)[b * kThreads + threadIdx.x];
  }
  __device__ const Pack<T, kWidth>& operator[](int b) const { return pack(b); }
  __device__ void load(const Pack<T, kWidth>* row, std::int64_t i, std::int64_t end) {
#pragma unroll
    for (int b = 0; b < kCount; ++b) {
      if (i + b * kThreads < end) {
        const auto to = static_cast<unsigned>(__cvta_generic_to_shared(&pack(b)));
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(row + i + b * kThreads) : "memory");
      } else {
#pragma unroll
        for (int k = 0; k < kWidth; ++k) pack(b).values[k] = static_cast<T>(kNothing);
      }
    }
  }
  __device__ void wait() const { asm volatile("cp.async.wait_all;" ::: "memory"); }
};

#if __CUDA_ARCH__ >= 900
// Of the whole cluster, in the order of its blocks. No block may end before release_cluster(): others read its shared memory.
template <class Sum>
__device__ void over_cluster(Sums<Sum>& sums, Sums<Sum>* block) {
  const auto cluster = cooperative_groups::this_cluster();
  if (threadIdx.x == 0) *block = sums;
  cluster.sync();
  if (threadIdx.x < 32) {
    sums = threadIdx.x < cluster.num_blocks() ? *cluster.map_shared_rank(block, threadIdx.x) : Sums<Sum>();
    sums.over_warp();
  }
}
__device__ inline void release_cluster() {
  cooperative_groups::this_cluster().sync();
}
#endif

// Every thread gets the sums over all of the row's threads. Before another call on a cluster: release_cluster().
template <class Sum>
__device__ Sums<Sum> over_row(Sums<Sum> sums) {
  __shared__ Sums<Sum> warps[kWarps], block, row;
  sums.over_warp();
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = sums;
  __syncthreads();
  if (threadIdx.x < 32) {
    sums = threadIdx.x < kWarps ? warps[threadIdx.x] : Sums<Sum>();
    sums.over_warp();
  }
#if __CUDA_ARCH__ >= 900
  over_cluster(sums, &block);
#endif
  if (threadIdx.x == 0) row = sums;
  __syncthreads();
  return row;
}

}  // namespace loss_cuda

}  // namespace molt::ops
