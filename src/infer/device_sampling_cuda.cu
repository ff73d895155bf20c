// One block a row. Weights are summed as integers (2^40 for the most probable token), so that sums do not depend on their order:
// the same row gives the same token whatever the block's threads do first.
//
// What top_k and top_p leave is everything above a threshold and the first few of those at it: the threshold is found digit by
// digit, eight bits of the logit a pass, by counts or by sums of weights.
#include "infer/device_sampling.h"
#include "ops/cuda_common.cuh"

namespace molt {

namespace device_sampling {

constexpr int kThreads = 1024, kBins = 256;
constexpr unsigned kAll = 0xffffffffu;
using Sum = unsigned long long;

constexpr int kWarps = kThreads / 32;

// A row of logits, of which each warp walks along a part of its own, 32 neighbours at a time.
template <class T>
struct Row {
  const T* logits;
  int count, begin, end;
  float top, scale;  // scale: 1 / temperature
  __device__ float operator[](int i) const { return static_cast<float>(logits[i]); }
  __device__ Sum weight(float logit) const { return __float2ull_rn(__expf((logit - top) * scale) * 0x1p40f); }

  // visit(i, logit) for the warp's places in order, by all its lanes together: places behind the end have -1. Ends when it
  // returns true. Several rows of 32 are read ahead.
  template <class Visit>
  __device__ void walk(const Visit& visit) const {
    constexpr int kAhead = 8;
    for (int first = begin; first < end; first += 32 * kAhead) {
      float ahead[kAhead];
#pragma unroll
      for (int j = 0; j < kAhead; ++j) {
        const int i = first + 32 * j + static_cast<int>(threadIdx.x % 32);
        ahead[j] = i < end ? (*this)[i] : -INFINITY;
      }
#pragma unroll
      for (int j = 0; j < kAhead; ++j) {
        const int i = first + 32 * j + static_cast<int>(threadIdx.x % 32);
        if (first + 32 * j < end && visit(i < end ? i : -1, ahead[j])) return;
      }
    }
  }
};

// As many bits as a logit has, larger for a larger number.
template <class T>
constexpr int kKeyBits = 8 * sizeof(T);
template <class T>
__device__ unsigned key_of(float logit) {
  const unsigned bits = __float_as_uint(logit);
  return (bits & 0x80000000u ? ~bits : bits | 0x80000000u) >> (32 - kKeyBits<T>);
}

// What is kept: keys above `key`, and the first `ties` of those equal to it.
struct Threshold {
  unsigned key = 0;
  int ties = 0x7fffffff;
  __device__ bool keeps_all() const { return key == 0; }  // which no number has
};

struct Best {
  float value, sum;  // sum: of exp(x - value)
  int index;
};
__device__ Best joined(const Best& a, const Best& b) {
  const bool first = a.value > b.value || (a.value == b.value && a.index < b.index);
  const float top = fmaxf(a.value, b.value);
  const auto part = [top](const Best& of) { return of.sum == 0.0f ? 0.0f : of.sum * __expf(of.value - top); };
  return {top, part(a) + part(b), first ? a.index : b.index};
}

// The largest logit, the first place of it, and the sum of exponentials.
template <class T>
__device__ Best best_of(const Row<T>& row) {
  __shared__ Best shared[kWarps];
  Best best{-INFINITY, 0.0f, 0x7fffffff};
  row.walk([&](int i, float x) {
    if (x > best.value) {
      best.sum = best.sum * __expf(best.value - x) + 1.0f;
      best.value = x, best.index = i;
    } else if (x != -INFINITY) {  // a number below, or none
      best.sum += __expf(x - best.value);
    }
    return false;
  });
  const auto from = [&](const Best& own, int other) -> Best {
    return {__shfl_xor_sync(kAll, own.value, other), __shfl_xor_sync(kAll, own.sum, other),
            __shfl_xor_sync(kAll, own.index, other)};
  };
  for (int other = 16; other > 0; other /= 2) best = joined(best, from(best, other));
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = best;
  __syncthreads();
  best = shared[threadIdx.x % 32];
  for (int other = 16; other > 0; other /= 2) best = joined(best, from(best, other));
  return best;
}

__device__ Sum warp_sum(Sum value) {
  for (int other = 16; other > 0; other /= 2) value += __shfl_xor_sync(kAll, value, other);
  return value;
}

// The sum of what the warps before this one have, given each warp's own in all its lanes; `total` gets that of all.
__device__ Sum sum_before(Sum own, Sum& total) {
  __shared__ Sum warps[kWarps];
  __syncthreads();
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = own;
  __syncthreads();
  const Sum held = warps[threadIdx.x % 32];
  total = warp_sum(held);
  return warp_sum(threadIdx.x % 32 < threadIdx.x / 32 ? held : 0);
}

// Adds, for each of a warp's lanes with `counts`, one and a weight to a bin: lanes of one bin together, as most share few of
// them.
__device__ void add_to_bins(unsigned* counts, Sum* sums, bool counted, unsigned bin, Sum weight, bool by_weight) {
  const unsigned lanes = __match_any_sync(kAll, counted ? bin : kBins);
  const bool first = __ffs(static_cast<int>(lanes)) - 1 == static_cast<int>(threadIdx.x % 32);
  if (by_weight) {
    // 2^40 in two parts whose sums over a warp fit 32 bits.
    constexpr unsigned part = (1u << 21) - 1;
    const unsigned low = __reduce_add_sync(lanes, static_cast<unsigned>(weight) & part),
                   high = __reduce_add_sync(lanes, static_cast<unsigned>(weight >> 21));
    if (counted && first) atomicAdd(&sums[bin], (static_cast<Sum>(high) << 21) + low);
  }
  if (counted && first) atomicAdd(&counts[bin], static_cast<unsigned>(__popc(lanes)));
}

// The threshold above and at which `goal` is reached: of tokens, or of weights.
template <class T>
__device__ Threshold reach(const Row<T>& row, bool by_weight, Sum goal) {
  __shared__ unsigned counts[kBins];
  __shared__ Sum sums[kBins];
  __shared__ int chosen;
  __shared__ Sum above;
  if (threadIdx.x == 0) above = 0;
  unsigned prefix = 0;
  Sum at = 0;
  constexpr int highest = kKeyBits<T> - 8;
  for (int shift = highest; shift >= 0; shift -= 8) {
    for (int i = threadIdx.x; i < kBins; i += kThreads) counts[i] = 0, sums[i] = 0;
    __syncthreads();
    row.walk([&](int i, float x) {
      const unsigned key = key_of<T>(x);
      const bool counted = i >= 0 && (shift == highest || key >> (shift + 8) == prefix);
      if (__any_sync(kAll, counted))
        add_to_bins(counts, sums, counted, key >> shift & (kBins - 1), by_weight && counted ? row.weight(x) : 0, by_weight);
      return false;
    });
    __syncthreads();
    if (threadIdx.x == 0) {
      int bin = kBins - 1;
      for (; bin > 0; --bin) {
        const Sum held = by_weight ? sums[bin] : counts[bin];
        if (above + held >= goal) break;
        above += held;
      }
      chosen = bin;
    }
    __syncthreads();
    prefix = prefix << 8 | static_cast<unsigned>(chosen);
    at = by_weight ? sums[chosen] / max(counts[chosen], 1u) : 1;
    __syncthreads();
  }
  const Sum missing = goal - above;
  return {prefix, static_cast<int>(at == 0 ? 1 : (missing + at - 1) / at)};
}

// Walks along what a threshold keeps: visit(i, weight) in all lanes of the warp, with weight 0 for what is not kept.
template <class T, class Visit>
__device__ void walk_kept(const Row<T>& row, const Threshold& threshold, Sum ties_before, const Visit& visit) {
  const unsigned before = (1u << threadIdx.x % 32) - 1;
  Sum seen = ties_before;
  row.walk([&](int i, float x) {
    const unsigned key = key_of<T>(x), ties = __ballot_sync(kAll, i >= 0 && key == threshold.key);
    const bool within = seen + __popc(ties & before) < static_cast<Sum>(threshold.ties);
    const bool kept = i >= 0 && (key > threshold.key || (key == threshold.key && within));
    seen += __popc(ties);
    return visit(i, kept ? row.weight(x) : 0);
  });
}

// How many tokens at the threshold come before the warp's part.
template <class T>
__device__ Sum ties_before(const Row<T>& row, const Threshold& threshold) {
  if (threshold.keeps_all()) return 0;
  Sum own = 0, total;
  row.walk([&](int i, float x) {
    own += i >= 0 && key_of<T>(x) == threshold.key;
    return false;
  });
  return sum_before(warp_sum(own), total);
}

// The sum of the weights that are kept in the warp's part.
template <class T>
__device__ Sum kept_sum(const Row<T>& row, const Threshold& threshold, Sum ties, int& last) {
  Sum own = 0;
  walk_kept(row, threshold, ties, [&](int i, Sum weight) {
    own += weight;
    if (weight > 0) last = i;
    return false;
  });
  return warp_sum(own);
}

// The first token up to which the kept weights sum to more than u of the whole.
template <class T>
__device__ int token_at(const Row<T>& row, const Threshold& threshold, double u) {
  __shared__ int token, last;
  if (threadIdx.x == 0) token = 0x7fffffff, last = -1;
  const Sum ties = ties_before(row, threshold);
  int own_last = -1;
  const Sum own = kept_sum(row, threshold, ties, own_last);
  if (own_last >= 0) atomicMax(&last, own_last);
  Sum total;
  const Sum before = sum_before(own, total);
  const Sum goal = static_cast<Sum>(u * static_cast<double>(total));
  if (before <= goal && before + own > goal) {
    Sum reached = before;
    walk_kept(row, threshold, ties, [&](int i, Sum weight) {
      Sum up_to = weight;
      for (int step = 1; step < 32; step *= 2) {
        const Sum below = __shfl_up_sync(kAll, up_to, step);
        if (static_cast<int>(threadIdx.x % 32) >= step) up_to += below;
      }
      const unsigned beyond = __ballot_sync(kAll, reached + up_to > goal);
      if (beyond != 0 && __ffs(static_cast<int>(beyond)) - 1 == static_cast<int>(threadIdx.x % 32)) token = i;
      reached += __shfl_sync(kAll, up_to, 31);
      return beyond != 0;
    });
  }
  __syncthreads();
  return token == 0x7fffffff ? last : token;
}

template <class T>
__global__ void __launch_bounds__(kThreads) sample_kernel(const DeviceSampling s) {
  const T* logits = static_cast<const T*>(s.logits) + blockIdx.x * s.vocabulary;
  const Draw draw = s.draws[blockIdx.x];
  const int count = static_cast<int>(s.vocabulary), share = (count + kThreads - 1) / kThreads * 32;  // of a warp
  const int begin = min(count, static_cast<int>(threadIdx.x / 32) * share);
  Row<T> row{logits, count, begin, min(count, begin + share), 0.0f, draw.inverse_temperature};
  const Best best = best_of(row);
  row.top = best.value;
  int token = best.index;
  const bool finite = isfinite(best.value) && isfinite(best.sum);
  if (finite && draw.inverse_temperature > 0.0f) {
    Threshold threshold;
    if (draw.top_k > 0 && draw.top_k < count) threshold = reach(row, false, draw.top_k);
    if (draw.top_p < 1.0) {
      Sum total;
      int last;
      sum_before(kept_sum(row, threshold, ties_before(row, threshold), last), total);
      threshold = reach(row, true, max(Sum{1}, static_cast<Sum>(ceil(draw.top_p * static_cast<double>(total)))));
    }
    token = token_at(row, threshold, draw.u);
  }
  if (threadIdx.x == 0)
    s.drawn[blockIdx.x] = {token, finite ? static_cast<float>(logits[token]) - best.value - logf(best.sum) : NAN};
}

__global__ void take_kernel(std::int64_t* tokens, const std::int32_t* follows, std::int64_t count, const Drawn* drawn) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < count && follows[i] >= 0) tokens[i] = drawn[follows[i]].token;
}

}  // namespace device_sampling

void sample_on_device(const DeviceSampling& s, void* stream) {
  using namespace device_sampling;
  if (s.rows == 0) return;
  const auto blocks = static_cast<unsigned>(s.rows);
  s.bfloat16 ? sample_kernel<__nv_bfloat16><<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(s)
             : sample_kernel<float><<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(s);
  ops::cuda::check_launch("sampling");
}

void take_drawn_tokens(std::int64_t* tokens, const std::int32_t* follows, std::int64_t count, const Drawn* drawn, void* stream) {
  if (count == 0) return;
  constexpr int threads = 128;
  const auto blocks = static_cast<unsigned>((count + threads - 1) / threads);
  device_sampling::take_kernel<<<blocks, threads, 0, static_cast<cudaStream_t>(stream)>>>(tokens, follows, count, drawn);
  ops::cuda::check_launch("sampling");
}

}  // namespace molt
