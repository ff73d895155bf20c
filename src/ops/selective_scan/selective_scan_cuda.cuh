// What the tuned kernels of the scan share, for a state of 16 and rows whose elements can be read four at a time: a warp holds 8
// channels, lane i the four states i / 8 * 4 … of channel i % 8, and walks along the tokens; what it reads was converted to float
// in shared memory.
//
// Long sequences are cut into spans where channels and sequences alone would not fill a GPU. Over a span the state (or,
// backwards, its gradient) is exp(A * sum of dt) times what came in, plus what comes of zeros: walk_ends finds the latter and the
// sum.
#pragma once
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstring>

#include "ops/cuda_common.cuh"
#include "ops/selective_scan/selective_scan_kernels.h"

namespace molt::ops::scan::scan_cuda {

constexpr int kState = 16;
constexpr float kLog2e = 1.44269504f, kLn2 = 0.69314718f;
constexpr unsigned kWarp = 0xffffffffu;

using cuda::as;

__device__ inline float exp2_fast(float x) {  // 2 ulp
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ inline float reciprocal(float x) {  // 1 ulp
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ inline float sigmoid(float x) {
  return reciprocal(1.0f + exp2_fast(-x * kLog2e));
}
// log(1 + e) for e in [0, 1] as e times a polynomial fitted for the least relative error, 3e-8.
__device__ inline float log1p_unit(float e) {
  float p = 0.00523269f;
  p = p * e - 0.02950521f;
  p = p * e + 0.07822591f;
  p = p * e - 0.13663243f;
  p = p * e + 0.19106005f;
  p = p * e - 0.24842983f;
  p = p * e + 0.33319098f;
  p = p * e - 0.49999493f;
  p = p * e + 0.99999994f;
  return p * e;
}
__device__ inline float softplus(float x) {
  return fmaxf(x, 0.0f) + log1p_unit(exp2_fast(-fabsf(x) * kLog2e));
}
// The derivative of softplus where its value is y: 1 - exp(-y), by its series where that would cancel; within 2e-5 of its value
// where the whole fraction is not asked for.
template <bool kWhole>
__device__ inline float softplus_slope(float y) {
  const float open = 1.0f - exp2_fast(-y * kLog2e);
  if constexpr (!kWhole) return y < 1.0f / 64 ? y * (1.0f - y * (0.5f - y * (1.0f / 6))) : open;
  float series = 1.0f / 120 - y * (1.0f / 720);
  series = 1.0f / 24 - y * series;
  series = 1.0f / 6 - y * series;
  series = 0.5f - y * series;
  return y < 0.25f ? y * (1.0f - y * series) : open;
}

// kCount elements beside each other as they lie in memory: in words, because the compiler gives each narrow one a register.
template <class T, int kCount>
struct alignas(sizeof(T) * kCount) Packed {
  static constexpr bool kWide = sizeof(T) == 4;
  std::uint32_t words[kCount * sizeof(T) / 4];

  __device__ static Packed of(const float (&values)[kCount]) {
    Packed result;
#pragma unroll
    for (int i = 0; i < kCount; i += kWide ? 1 : 2) {
      if constexpr (kWide) {
        result.words[i] = __float_as_uint(values[i]);
      } else {
        const __nv_bfloat162 pair = __floats2bfloat162_rn(values[i], values[i + 1]);
        memcpy(&result.words[i / 2], &pair, sizeof(pair));
      }
    }
    return result;
  }
  __device__ void write(T* to) const { *reinterpret_cast<Packed*>(to) = *this; }
  __device__ float operator[](int i) const {
    if constexpr (kWide) return __uint_as_float(words[i]);
    return __uint_as_float(i % 2 ? words[i / 2] & 0xffff0000u : words[i / 2] << 16);
  }
  __device__ float4 wide() const { return {(*this)[0], (*this)[1], (*this)[2], (*this)[3]}; }
};

// A matrix of tokens.
struct Rows {
  const void* data = nullptr;
  int stride = 0;  // elements from row to row
};

// The inputs as the kernels read them. Without a gate or a gradient of y there is still something to read in its place.
struct Inputs {
  Rows x, dt, B, C, z, y_gradient;
  bool gated, driven;

  Inputs(const Arguments& a, const void* y_gradient)
      : x{a.x, static_cast<int>(a.x_stride)},
        dt{a.dt, static_cast<int>(a.dt_stride)},
        B{a.B, static_cast<int>(a.B_stride)},
        C{a.C, static_cast<int>(a.C_stride)},
        z{a.z ? Rows{a.z, static_cast<int>(a.z_stride)} : dt},
        y_gradient{y_gradient ? Rows{y_gradient, static_cast<int>(a.d_inner)} : dt},
        gated(a.z),
        driven(y_gradient) {}
};

// `from` and `to` are (…, d_inner, 16); `row` selects one (d_inner, 16). Null reads as zeros.
template <int kCount>
__device__ void load_state(float (&h)[kCount], const void* from, std::int64_t row, std::int64_t d_inner, int channel, int first) {
#pragma unroll
  for (int k = 0; k < kCount; ++k) h[k] = from ? as<float>(from)[(row * d_inner + channel) * kState + first + k] : 0.0f;
}
template <int kCount>
__device__ void store_state(void* to, const float (&h)[kCount], std::int64_t row, std::int64_t d_inner, int channel, int first) {
  Packed<float, kCount>::of(h).write(as<float>(to) + (row * d_inner + channel) * kState + first);
}

// A part of a sequence that a block walks along. Span k of sequence s is number offsets[s] / length + s + k, so that numbers up
// to span_count() cover all and no two share one; numbers between sequences are spans past the end (`exists` is false).
struct Span {
  int sequence, begin, end;  // tokens in the pack
  int start, stop;           // the same of the whole sequence
  int first, number, last;   // spans: the sequence's first, this one, its last
  bool exists;

  __device__ Span(const Arguments& a, int span, int length) : number(span) {
    int low = 0, high = static_cast<int>(a.sequences);  // the last sequence whose first span is not behind this one
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      (a.offsets[middle] / length + middle <= span ? low : high) = middle;
    }
    sequence = low;
    start = a.offsets[low], stop = a.offsets[low + 1];
    first = start / length + low;
    last = first + (stop > start ? (stop - start - 1) / length : 0);
    begin = start + (span - first) * length;
    end = stop - begin < length ? stop : begin + length;
    exists = span <= last;
  }
};

inline std::int64_t span_count(const Arguments& a, std::int64_t length) {
  return a.tokens / length + a.sequences;
}

// The columns of group j of B (and of x, unless it is repeated).
__device__ inline int shared_column(const Arguments& a, int group) {
  return group / static_cast<int>(a.d_inner / a.d_xb) * kState;
}

// Tokens of a span, a multiple of kChunk, so that spans of `blocks` blocks come to about `wanted` blocks in all.
inline std::int64_t span_length(const Arguments& a, std::int64_t blocks, std::int64_t wanted) {
  const std::int64_t spans = (wanted + blocks - 1) / blocks;
  return spans > 1 ? ((a.tokens - 1) / spans / kChunk + 1) * kChunk : (a.tokens / kChunk + 1) * kChunk;
}

// Whether spans of that length are shorter than a sequence may be. Then a kernel that finds ends goes before the one that carries
// them on, and that one may read all but them before await_previous().
__host__ __device__ inline bool is_cut(const Arguments& a, std::int64_t length) {
  return length <= a.tokens;
}

// For each span but the one from which the states go out (the last of a sequence, backwards the first): what its states come to
// from zeros, (spans, d_inner, 16), and the sum of dt, (spans, d_inner).
struct Ends {
  float *states = nullptr, *dt = nullptr;
};
inline std::int64_t ends_size(const Arguments& a, std::int64_t length) {
  return is_cut(a, length) ? span_count(a, length) * a.d_inner * (kState + 1) : 0;
}
inline Ends ends_in(void* scratch, const Arguments& a, std::int64_t length) {
  float* states = static_cast<float*>(scratch);
  return {.states = states, .dt = states + span_count(a, length) * a.d_inner * kState};
}
// The ends backwards, of what comes of the gradient of y.
void launch_adjoint_ends(const Arguments& a, const void* y_gradient, std::int64_t length, Ends ends, cudaStream_t stream);

// What enters a span: `h`, which entered the sequence, carried over the spans before it (backwards: behind it), in order. The
// ends of several spans are on their way from memory together.
template <bool kBackwards, int kCount>
__device__ void carry(float (&h)[kCount], const float (&A)[kCount], const Ends& ends, const Span& span, std::int64_t d_inner,
                      int channel, int first) {
  constexpr int kAhead = 8;
  cuda::await_previous();  // which finds the ends, if there are any
  const int start = kBackwards ? span.last : span.first, count = kBackwards ? start - span.number : span.number - start;
  for (int done = 0; done < count; done += kAhead) {
    float dt[kAhead];
    Packed<float, kCount> own[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int ahead = min(done + i, count - 1), number = kBackwards ? start - ahead : start + ahead;
      const std::int64_t row = number * d_inner + channel;
      dt[i] = ends.dt[row];
      own[i] = *reinterpret_cast<const Packed<float, kCount>*>(ends.states + row * kState + first);
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
#pragma unroll
      for (int k = 0; k < kCount; ++k) {
        if (done + i < count) h[k] = exp2_fast(dt[i] * A[k]) * h[k] + own[i][k];
      }
    }
  }
}

// -exp(A_log) * log2(e)
template <int kCount>
__device__ void load_decay(float (&A)[kCount], const Arguments& a, int channel, int first) {
  load_state(A, a.A_log, 0, a.d_inner, channel, first);
#pragma unroll
  for (int k = 0; k < kCount; ++k) A[k] = -expf(A[k]) * kLog2e;
}

// The tuned kernels, and the plain ones for a state of any size.
std::int64_t forward_scratch(const Arguments& a);
void forward(const Arguments& a, cudaStream_t stream);
bool backward_fits(DataType type);  // into the shared memory of a block: float32 does from Hopper on
BackwardRoom backward_room(const Arguments& a);
void backward(const Arguments& a, const Gradients& gradients, cudaStream_t stream);
void plain_forward(const Arguments& a, cudaStream_t stream);
BackwardRoom plain_backward_room(const Arguments& a);
void plain_backward(const Arguments& a, const Gradients& gradients, cudaStream_t stream);

}  // namespace molt::ops::scan::scan_cuda
