// Vectors in GCC's own notation, with the elementary functions the CPU kernels need. A kernel is written once as an
// always-inlined template over float and double and called from functions marked MOLT_CLONES, which the compiler emits for
// several generations of CPUs; the best one is taken at run time. In double precision the functions are the standard library's.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#if MOLT_CPU_LEVEL == 3  // one level alone, to be tested and timed on a processor that has more
#define MOLT_CLONES __attribute__((target("arch=x86-64-v3")))
#define MOLT_WIDE __attribute__((target("arch=x86-64-v4")))
#define MOLT_HAS_WIDE false
#elif MOLT_CPU_LEVEL == 1
#define MOLT_CLONES
#define MOLT_WIDE __attribute__((target("arch=x86-64-v4")))
#define MOLT_HAS_WIDE false
#elif defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define MOLT_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#define MOLT_WIDE __attribute__((target("arch=x86-64-v4")))
#define MOLT_HAS_WIDE __builtin_cpu_supports("x86-64-v4")
#else
#define MOLT_CLONES
#define MOLT_WIDE
#define MOLT_HAS_WIDE false
#endif
#define MOLT_INLINE inline __attribute__((always_inline))

// Everything that takes or returns vectors is inlined, so the calling conventions GCC warns of never come into play. (For
// arguments by value it prints notes that cannot be turned off here: they are references.)
#pragma GCC diagnostic ignored "-Wpsabi"

namespace molt::ops {

// Whether functions marked MOLT_WIDE, kernels for vectors of 64 bytes, run here.
inline bool has_wide_lanes() {
  return MOLT_HAS_WIDE;
}

// Of 32 bytes, which AVX2 has whole, or of 64 in functions marked MOLT_WIDE.
template <class Scalar, int kBytes = 32>
struct LanesOf {
  using Integer = std::conditional_t<sizeof(Scalar) == 4, std::int32_t, std::int64_t>;
  typedef Scalar Vector __attribute__((vector_size(kBytes)));
  typedef Integer Bits __attribute__((vector_size(kBytes)));
};
template <class Scalar, int kBytes = 32>
using Lanes = typename LanesOf<Scalar, kBytes>::Vector;
template <class Scalar, int kBytes = 32>
constexpr int kLanes = kBytes / sizeof(Scalar);
template <class Vector>
using ElementOf = std::remove_cvref_t<decltype(std::declval<Vector>()[0])>;
template <class Vector>
using BitsOf = typename LanesOf<ElementOf<Vector>, sizeof(Vector)>::Bits;

// count rounded up to whole vectors.
template <class Scalar>
constexpr std::int64_t padded(std::int64_t count) {
  return (count + kLanes<Scalar> - 1) / kLanes<Scalar> * kLanes<Scalar>;
}

template <class Scalar, int kBytes = 32>
MOLT_INLINE Lanes<Scalar, kBytes> splat(Scalar value) {
  return value - Lanes<Scalar, kBytes>{};
}

// The same, but the compiler does not see the value: with a constant limit GCC 12 makes a compare and a blend of larger(). (Of an
// unseen scalar it would make the vector element by element.)
template <class Scalar, int kBytes = 32>
MOLT_INLINE Lanes<Scalar, kBytes> splat_unseen(Scalar value) {
  Lanes<Scalar, kBytes> lanes = splat<Scalar, kBytes>(value);
  asm("" : "+m"(lanes));
  return lanes;
}

template <int kBytes = 32, class Scalar>
MOLT_INLINE Lanes<Scalar, kBytes> load(const Scalar* from) {
  Lanes<Scalar, kBytes> value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

template <class Vector>
MOLT_INLINE void store(ElementOf<Vector>* to, const Vector& value) {
  std::memcpy(to, &value, sizeof value);
}

// The first `count` elements and zeros after them; the whole vector if count is larger.
template <int kBytes = 32, class Scalar>
MOLT_INLINE Lanes<Scalar, kBytes> load(const Scalar* from, std::int64_t count) {
  if (count >= kLanes<Scalar, kBytes>) return load<kBytes>(from);
  Lanes<Scalar, kBytes> value = {};
  for (int i = 0; i < count; ++i) value[i] = from[i];
  return value;
}

template <class Vector>
MOLT_INLINE void store(ElementOf<Vector>* to, const Vector& value, std::int64_t count) {
  if (count >= static_cast<std::int64_t>(sizeof value / sizeof value[0])) return store(to, value);
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

// Adding it to a float rounds to the nearest whole number and leaves that in the low bits.
constexpr float kRound = 12582912.0f;  // 1.5 * 2^23

// 2^r on [-1/2, 1/2]: the polynomial with the smallest largest relative error (9e-8) among those that are 1 at 0.
template <class Vector>
MOLT_INLINE Vector exp2_of_fraction(const Vector& r) {
  Vector p = 1.3264727e-3f * r + 9.671513e-3f;
  p = p * r + 5.5507337e-2f;
  p = p * r + 2.4022242e-1f;
  p = p * r + 6.9314698e-1f;
  return p * r + 1.0f;
}

// p * 2^k where `rounded` is k + kRound: k is added to the exponent.
template <class Vector>
MOLT_INLINE Vector scaled_by_power(const Vector& p, const Vector& rounded) {
  return (Vector)((BitsOf<Vector>)p + ((BitsOf<Vector>)rounded << 23));
}

// 2^x for -126 <= x <= 127; largest relative error 1.5e-7, exact for whole x.
template <class Vector>
MOLT_INLINE Vector exp2_in_range(const Vector& x) {
  if constexpr (std::is_same_v<ElementOf<Vector>, float>) {
    const Vector rounded = x + kRound;
    return scaled_by_power(exp2_of_fraction(Vector(x - (rounded - kRound))), rounded);
  } else {
    Vector result;
    for (std::size_t i = 0; i < sizeof x / sizeof x[0]; ++i) result[i] = std::exp2(x[i]);
    return result;
  }
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
  const Vector power = x * static_cast<ElementOf<Vector>>(M_LOG2E);
  return exp2_in_range(smaller(limit, larger(-limit, power)));
}

template <class Vector>
MOLT_INLINE Vector sigmoid(const Vector& x) {
  return 1 / (1 + exp(-x));
}

// log(1 + u) for 0 <= u <= 1, as 2 atanh(u / (2 + u)) by its series; largest relative error 2e-7.
template <class Vector>
MOLT_INLINE Vector log1p_of_fraction(const Vector& u) {
  if constexpr (std::is_same_v<ElementOf<Vector>, float>) {
    const Vector s = u / (2.0f + u), q = s * s;
    Vector p = q * (2.0f / 13) + 2.0f / 11;
    p = p * q + 2.0f / 9;
    p = p * q + 2.0f / 7;
    p = p * q + 2.0f / 5;
    p = p * q + 2.0f / 3;
    p = p * q + 2.0f;
    return p * s;
  } else {
    Vector result;
    for (std::size_t i = 0; i < sizeof u / sizeof u[0]; ++i) result[i] = std::log1p(u[i]);
    return result;
  }
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
MOLT_INLINE float sum(const Lanes<float, 64>& v) {
  Lanes<float> halves[2];
  std::memcpy(halves, &v, sizeof v);
  return sum(Lanes<float>(halves[0] + halves[1]));
}

// The largest element.
MOLT_INLINE float maximum_of(const Lanes<float>& v) {
  using Bits = LanesOf<float>::Bits;
  const Lanes<float> fours = larger(v, Lanes<float>(__builtin_shuffle(v, Bits{4, 5, 6, 7, 0, 1, 2, 3})));
  const Lanes<float> twos = larger(fours, Lanes<float>(__builtin_shuffle(fours, Bits{2, 3, 0, 1, 6, 7, 4, 5})));
  return std::max(twos[0], twos[1]);
}
MOLT_INLINE double maximum_of(const Lanes<double>& v) {
  return std::max(std::max(v[0], v[2]), std::max(v[1], v[3]));
}
MOLT_INLINE float maximum_of(const Lanes<float, 64>& v) {
  Lanes<float> halves[2];
  std::memcpy(halves, &v, sizeof v);
  return maximum_of(larger(halves[0], halves[1]));
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
MOLT_INLINE Lanes<float, 64> sums(const Lanes<float, 64>* rows) {
  using Wide = Lanes<float, 64>;
  using Bits = LanesOf<float, 64>::Bits;
  Wide halves[8], pairs[4], quads[2];  // rows i and i + 8 share a vector, and then do what the shorter ones do in each half
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    const Wide a = rows[i], b = rows[i + 8];
    halves[i] = __builtin_shuffle(a, b, Bits{0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23}) +
                __builtin_shuffle(a, b, Bits{8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31});
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const Wide a = halves[2 * i], b = halves[2 * i + 1];
    pairs[i] = __builtin_shuffle(a, b, Bits{0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29}) +
               __builtin_shuffle(a, b, Bits{2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31});
  }
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    const Wide a = pairs[2 * i], b = pairs[2 * i + 1];
    quads[i] = __builtin_shuffle(a, b, Bits{0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29}) +
               __builtin_shuffle(a, b, Bits{2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31});
  }
  return __builtin_shuffle(quads[0], quads[1], Bits{0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27}) +
         __builtin_shuffle(quads[0], quads[1], Bits{4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31});
}

// Row i of eight vectors of eight becomes column i.
MOLT_INLINE void transpose(Lanes<float>* rows) {
  using Bits = LanesOf<float>::Bits;
  Lanes<float> pairs[8], quads[8];
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    pairs[i] = __builtin_shuffle(rows[i], rows[i + 1], Bits{0, 8, 1, 9, 4, 12, 5, 13});
    pairs[i + 1] = __builtin_shuffle(rows[i], rows[i + 1], Bits{2, 10, 3, 11, 6, 14, 7, 15});
  }
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 4)
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      quads[i + 2 * half] = __builtin_shuffle(pairs[i + half], pairs[i + 2 + half], Bits{0, 1, 8, 9, 4, 5, 12, 13});
      quads[i + 2 * half + 1] = __builtin_shuffle(pairs[i + half], pairs[i + 2 + half], Bits{2, 3, 10, 11, 6, 7, 14, 15});
    }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    rows[i] = __builtin_shuffle(quads[i], quads[i + 4], Bits{0, 1, 2, 3, 8, 9, 10, 11});
    rows[i + 4] = __builtin_shuffle(quads[i], quads[i + 4], Bits{4, 5, 6, 7, 12, 13, 14, 15});
  }
}

// Row i of sixteen vectors of sixteen becomes column i.
MOLT_INLINE void transpose(Lanes<float, 64>* rows) {
  using Wide = Lanes<float, 64>;
  using Bits = LanesOf<float, 64>::Bits;
  Wide pairs[16], quads[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    const Wide a = rows[i], b = rows[i + 1];
    pairs[i] = __builtin_shuffle(a, b, Bits{0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29});
    pairs[i + 1] = __builtin_shuffle(a, b, Bits{2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31});
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4)
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      const Wide a = pairs[i + half], b = pairs[i + 2 + half];
      quads[i + 2 * half] = __builtin_shuffle(a, b, Bits{0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29});
      quads[i + 2 * half + 1] = __builtin_shuffle(a, b, Bits{2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31});
    }
  // quads[i + c] holds columns c, 4 + c, 8 + c and 12 + c of rows i … i + 3.
  const Bits even{0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27};
  const Bits odd{4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31};
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    const Wide above[2] = {__builtin_shuffle(quads[c], quads[4 + c], even), __builtin_shuffle(quads[c], quads[4 + c], odd)};
    const Wide below[2] = {__builtin_shuffle(quads[8 + c], quads[12 + c], even),
                           __builtin_shuffle(quads[8 + c], quads[12 + c], odd)};
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      rows[4 * i + c] = __builtin_shuffle(above[i], below[i], even);
      rows[4 * i + 8 + c] = __builtin_shuffle(above[i], below[i], odd);
    }
  }
}

}  // namespace molt::ops
