// What the CPU kernels share: one body compiled for several instruction sets, and functions that vectorise when inlined into a
// loop.
//
// A kernel is an always-inline template over its number type, called from a plain function marked MOLT_CLONES for each type.
// Loops carry
// `#pragma omp simd`: without it GCC 12 at -O2 vectorises only loops of known length, and sums keep their order.
#pragma once
#include <bit>
#include <cmath>
#include <cstdint>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define MOLT_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define MOLT_CLONES
#endif
#define MOLT_INLINE inline __attribute__((always_inline))

namespace molt::ops {

// e^x within 1e-7 of the exact value, relatively (Cody-Waite reduction, polynomial of degree 5). Below -87.3 it stays at 1e-38,
// above 88.3 at 2e38; NaN stays NaN.
MOLT_INLINE float fast_exp(float x) {
  x = x < -87.3f ? -87.3f : x;
  x = x > 88.3f ? 88.3f : x;
  constexpr float round_to_integer = 12582912.0f;  // 1.5 * 2^23: the sum's low bits are the nearest integer
  const float shifted = x * 1.44269504f + round_to_integer;
  const float n = shifted - round_to_integer;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // x - n ln 2, in two parts
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  const std::uint32_t power = (std::bit_cast<std::uint32_t>(shifted) << 23) + 0x3f800000u;  // 2^n
  return p * std::bit_cast<float>(power);
}

// Double precision serves gradient checks: exact before fast.
MOLT_INLINE double fast_exp(double x) {
  return std::exp(x);
}

template <class T>
MOLT_INLINE T sigmoid(T x) {
  return T(1) / (T(1) + fast_exp(-x));
}

}  // namespace molt::ops
