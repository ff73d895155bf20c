// Vectors of 32 bytes in GCC's own notation, with the elementary functions the CPU kernels need. A kernel is written once as an
// always-inlined template over float and double and called from functions marked MOLT_CLONES, which the compiler emits for
// several generations of CPUs; the best one is taken at run time. In double precision the functions are the standard library's.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define MOLT_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define MOLT_CLONES
#endif
#define MOLT_INLINE inline __attribute__((always_inline))

// Everything that takes or returns vectors is inlined, so the calling conventions GCC warns of never come into play. (For
// arguments by value it prints notes that cannot be turned off here: they are references.)
#pragma GCC diagnostic ignored "-Wpsabi"

namespace molt::ops {

template <class Scalar>
struct LanesOf;
template <>
struct LanesOf<float> {
  typedef float Vector __attribute__((vector_size(32)));
  typedef std::int32_t Bits __attribute__((vector_size(32)));
};
template <>
struct LanesOf<double> {
  typedef double Vector __attribute__((vector_size(32)));
  typedef std::int64_t Bits __attribute__((vector_size(32)));
};
template <class Scalar>
using Lanes = typename LanesOf<Scalar>::Vector;
template <class Scalar>
constexpr int kLanes = 32 / sizeof(Scalar);

// count rounded up to whole vectors.
template <class Scalar>
constexpr std::int64_t padded(std::int64_t count) {
  return (count + kLanes<Scalar> - 1) / kLanes<Scalar> * kLanes<Scalar>;
}

template <class Scalar>
MOLT_INLINE Lanes<Scalar> splat(Scalar value) {
  return value - Lanes<Scalar>{};
}

// The same of a value that the compiler does not see: with a constant limit GCC 12 makes a compare and a blend of larger().
template <class Scalar>
MOLT_INLINE Lanes<Scalar> splat_unseen(Scalar value) {
  asm("" : "+m"(value));
  return splat(value);
}

template <class Scalar>
MOLT_INLINE Lanes<Scalar> load(const Scalar* from) {
  Lanes<Scalar> value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

template <class Scalar>
MOLT_INLINE void store(Scalar* to, const Lanes<Scalar>& value) {
  std::memcpy(to, &value, sizeof value);
}

// The first `count` elements and zeros after them; the whole vector if count is larger.
template <class Scalar>
MOLT_INLINE Lanes<Scalar> load(const Scalar* from, std::int64_t count) {
  if (count >= kLanes<Scalar>) return load(from);
  Lanes<Scalar> value = {};
  for (int i = 0; i < count; ++i) value[i] = from[i];
  return value;
}

template <class Scalar>
MOLT_INLINE void store(Scalar* to, const Lanes<Scalar>& value, std::int64_t count) {
  if (count >= kLanes<Scalar>) return store(to, value);
  for (int i = 0; i < count; ++i) to[i] = value[i];
}

// The larger and the smaller of each pair; b where one is not a number.
template <class Vector>
MOLT_INLINE Vector larger(const Vector& a, const Vector& b) {
  return a > b ? a : b;
}
template <class Vector>
MOLT_INLINE Vector smaller(const Vector& a, const Vector& b) {
  return a < b ? a : b;
}

// 2^x for -126 <= x <= 127; largest relative error 1.5e-7, exact for whole x.
MOLT_INLINE Lanes<float> exp2_in_range(const Lanes<float>& x) {
  // Adding 1.5 * 2^23 rounds to the nearest whole number k and leaves it in the low bits. 2^(x - k) is a polynomial with the
  // smallest largest relative error on [-1/2, 1/2] (9e-8) among those that are 1 at 0; adding k to its exponent multiplies by
  // 2^k.
  constexpr float kRound = 12582912.0f;
  using Bits = LanesOf<float>::Bits;
  const Lanes<float> shifted = x + kRound;
  const Lanes<float> r = x - (shifted - kRound);
  Lanes<float> p = 1.3264727e-3f * r + 9.671513e-3f;
  p = p * r + 5.5507337e-2f;
  p = p * r + 2.4022242e-1f;
  p = p * r + 6.9314698e-1f;
  p = p * r + 1.0f;
  return (Lanes<float>)((Bits)p + ((Bits)shifted << 23));
}

MOLT_INLINE Lanes<double> exp2_in_range(const Lanes<double>& x) {
  Lanes<double> result;
  for (int i = 0; i < kLanes<double>; ++i) result[i] = std::exp2(x[i]);
  return result;
}

// 2^x for x <= 0; what is below 2^-126 becomes 2^-126.
template <class Vector>
MOLT_INLINE Vector exp2_not_positive(const Vector& x) {
  return exp2_in_range(larger(Vector{} - 126, x));
}

// e^x, kept within 2^-126 … 2^126.
template <class Vector>
MOLT_INLINE Vector exp(const Vector& x) {
  const Vector limit = Vector{} + 126;
  const Vector power = x * static_cast<std::remove_cvref_t<decltype(x[0])>>(M_LOG2E);
  return exp2_in_range(smaller(limit, larger(-limit, power)));
}

template <class Vector>
MOLT_INLINE Vector sigmoid(const Vector& x) {
  return 1 / (1 + exp(-x));
}

// log(1 + u) for 0 <= u <= 1, as 2 atanh(u / (2 + u)) by its series; largest relative error 2e-7.
MOLT_INLINE Lanes<float> log1p_of_fraction(const Lanes<float>& u) {
  const Lanes<float> s = u / (2.0f + u), q = s * s;
  Lanes<float> p = q * (2.0f / 13) + 2.0f / 11;
  p = p * q + 2.0f / 9;
  p = p * q + 2.0f / 7;
  p = p * q + 2.0f / 5;
  p = p * q + 2.0f / 3;
  p = p * q + 2.0f;
  return p * s;
}

MOLT_INLINE Lanes<double> log1p_of_fraction(const Lanes<double>& u) {
  Lanes<double> result;
  for (int i = 0; i < kLanes<double>; ++i) result[i] = std::log1p(u[i]);
  return result;
}

// log(1 + e^x), without overflow and accurate where it is small; and its slope, sigmoid(x).
template <class Vector>
MOLT_INLINE Vector softplus(const Vector& x, Vector& slope) {
  const Vector e = exp(x > 0 ? -x : x);
  slope = (x > 0 ? Vector{} + 1 : e) / (1 + e);
  return larger(x, Vector{}) + log1p_of_fraction(e);
}

// The sum of the elements.
MOLT_INLINE float sum(const Lanes<float>& v) {
  return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
}
MOLT_INLINE double sum(const Lanes<double>& v) {
  return (v[0] + v[2]) + (v[1] + v[3]);
}

// One vector whose element i is the sum of the elements of rows[i], for as many rows as a vector has elements.
MOLT_INLINE Lanes<float> sums(const Lanes<float>* rows) {
  using Bits = LanesOf<float>::Bits;
  Lanes<float> pairs[4], quads[2];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const Lanes<float> a = rows[2 * i], b = rows[2 * i + 1];
    pairs[i] =
        __builtin_shuffle(a, b, Bits{0, 8, 1, 9, 4, 12, 5, 13}) + __builtin_shuffle(a, b, Bits{2, 10, 3, 11, 6, 14, 7, 15});
  }
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    const Lanes<float> a = pairs[2 * i], b = pairs[2 * i + 1];
    quads[i] =
        __builtin_shuffle(a, b, Bits{0, 1, 8, 9, 4, 5, 12, 13}) + __builtin_shuffle(a, b, Bits{2, 3, 10, 11, 6, 7, 14, 15});
  }
  return __builtin_shuffle(quads[0], quads[1], Bits{0, 1, 2, 3, 8, 9, 10, 11}) +
         __builtin_shuffle(quads[0], quads[1], Bits{4, 5, 6, 7, 12, 13, 14, 15});
}
MOLT_INLINE Lanes<double> sums(const Lanes<double>* rows) {
  return Lanes<double>{sum(rows[0]), sum(rows[1]), sum(rows[2]), sum(rows[3])};
}

}  // namespace molt::ops
