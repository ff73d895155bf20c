// Losses and gradients of rows of logits on a GPU, in two passes over each row: its sums, then its gradient; between them one for
// the divergences from a mixture, where one is asked for.
// What bounds it is memory: a row of 131,072 logits is 512 KB, twice that with the teacher's. So a cluster of blocks shares
// a row. Up to that length, and without a mixture, the row stays with them from the first pass to the second: the student's
// logits in registers, the teacher's in shared memory. Else the rows at work at one time are few enough for the second pass to
// find them in the L2 cache.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cmath>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "ops/linear_loss/linear_loss_cuda.h"
#include "ops/linear_loss/linear_loss_row.cuh"

namespace molt::ops {

namespace loss_cuda {

constexpr int kBlocks = 2, kCluster = 8;  // blocks on a processor at a time, and that share a row at most
constexpr int kBatch = 2;                 // packs of a row that a thread has under way at a time
constexpr int kHeld = 8;                  // or keeps, all it has of a row
constexpr std::int64_t kSlice = 8192;     // logits of a block, above which more blocks are worth the barriers between them
constexpr double kLog2e = 1.4426950408889634, kLn2 = 0.6931471805599453;

__device__ float log_of_two(float x) {
  return __log2f(x);
}
__device__ double log_of_two(double x) {
  return log2(x);
}

// What a kernel is compiled for: no teacher; one that the student is compared with; and with a mixture of both, too.
enum class Teacher { none, compared, mixed };

// What a row's arithmetic needs beside its logits, made on the host. The gradient of one logit is p (constant + slope (log2 p -
// log2 p_teacher) + mixed (log2 p - log2 p_mixture - KL)) - forward p_teacher + plain p_plain, less `chosen` at the target.
//
// d CE / d logit[v] = p[v] - [v is the target], at temperature 1; with s = log(sum of exp(logits)), d s^2 / d logit[v] = 2 s
// p[v]. With p at the temperature: d KL(t || s) / d logit[v] = (p_s - p_t) / temperature and d KL(s || t) / d logit[v] = p_s (log
// p_s - log p_t - KL(s || t)) / temperature; d JSD / d logit[v] is 1 - beta times that with the mixture in t's place.
template <class Sum>
struct Coefficients {
  Sum cooling = 1, scale = 0;                              // 1 / temperature; the same in units of log2
  Sum cross_entropy = 0, z = 0, forward = 0, reverse = 0;  // a token's slopes before its weight
  Sum mixed = 0, beta = 0, log_beta = 0, log_rest = 0;     // of the mixture: its slope, beta, log2 of beta and of 1 - beta
  bool separate = false;                                   // cross-entropy is of another temperature than the divergences
};

template <class Sum>
Coefficients<Sum> coefficients(const CudaLossRows& work) {
  Coefficients<Sum> c;
  const double cooling = work.teacher ? 1 / work.mix.temperature : 1;
  c.cooling = static_cast<Sum>(cooling);
  c.scale = static_cast<Sum>(kLog2e * cooling);
  c.cross_entropy = static_cast<Sum>(work.mix.cross_entropy);
  c.z = static_cast<Sum>(work.mix.z);
  c.forward = static_cast<Sum>(work.mix.forward_kl * cooling);
  c.reverse = static_cast<Sum>(work.mix.reverse_kl * cooling);
  c.mixed = static_cast<Sum>(work.mix.jsd * (1 - work.mix.beta) * cooling);
  c.beta = static_cast<Sum>(work.mix.beta);
  c.log_beta = static_cast<Sum>(std::log2(work.mix.beta));
  c.log_rest = static_cast<Sum>(std::log2(1 - work.mix.beta));
  c.separate = work.targets && cooling != 1;
  return c;
}

template <class Sum, int kWidth>
__device__ Sum largest(const Pack<Sum, kWidth>& pack) {
  Sum top = kNothing;
#pragma unroll
  for (int k = 0; k < kWidth; ++k) top = max(top, pack.values[k]);
  return top;
}

template <class Sum, int kWidth, Teacher kTeacher>
__device__ void add(Sums<Sum>& sums, const Pack<Sum, kWidth>& student, const Pack<Sum, kWidth>& teacher,
                    const Coefficients<Sum>& c) {
  const Sum top = largest(student), log2e = static_cast<Sum>(kLog2e);
  sums.student.raise(top * c.scale);
  if constexpr (kTeacher != Teacher::none) sums.teacher.raise(largest(teacher) * c.scale);
  if (c.separate) sums.plain.raise(top * log2e);
#pragma unroll
  for (int k = 0; k < kWidth; ++k) {
    const Sum x = student.values[k], p = power_of_two(x * c.scale - sums.student.top);
    sums.student.total += p;
    if (c.separate) sums.plain.total += power_of_two(x * log2e - sums.plain.top);
    if constexpr (kTeacher != Teacher::none) {
      const Sum y = teacher.values[k], q = power_of_two(y * c.scale - sums.teacher.top);
      sums.student.difference += p * (x - y);
      sums.teacher.total += q;
      sums.teacher.difference += q * (x - y);
    }
  }
}

// log2 of the mixture's probability from those of student and teacher.
template <class Sum>
__device__ Sum log_mixed(Sum log_p, Sum log_q, const Coefficients<Sum>& c) {
  const Sum a = log_p + c.log_rest, b = log_q + c.log_beta;
  return max(a, b) + log_of_two(1 + power_of_two(-abs(a - b)));
}

// A thread's part of KL(student || mixture) and KL(teacher || mixture), in units of log2.
template <class Sum, int kWidth>
__device__ void add_from_mixture(Sum& student, Sum& teacher, const Pack<Sum, kWidth>& x, const Pack<Sum, kWidth>& y,
                                 const Sum (&log_totals)[3], const Coefficients<Sum>& c) {
#pragma unroll
  for (int k = 0; k < kWidth; ++k) {
    const Sum log_p = x.values[k] * c.scale - log_totals[0], log_q = y.values[k] * c.scale - log_totals[1],
              log_m = log_mixed(log_p, log_q, c);
    student += power_of_two(log_p) * (log_p - log_m);
    teacher += power_of_two(log_q) * (log_q - log_m);
  }
}

template <class Sum>
struct Slopes {
  Sum constant, slope, forward, plain, chosen;
  Sum mixed = 0, from_mixture = 0;  // of the mixture: slope in units of log2, KL(student || mixture) in them

  __device__ Slopes(const Coefficients<Sum>& c, Sum weight, Sum reverse_kl, Sum log_sum)
      : constant(weight * (c.forward - c.reverse * reverse_kl + (c.separate ? Sum(0) : c.cross_entropy + 2 * c.z * log_sum))),
        slope(weight * c.reverse * static_cast<Sum>(kLn2)),
        forward(weight * c.forward),
        plain(c.separate ? weight * (c.cross_entropy + 2 * c.z * log_sum) : Sum(0)),
        chosen(weight * c.cross_entropy) {}
};

// `chosen`: the target's place in the pack, or another number.
template <class Slope, class Sum, int kWidth, Teacher kTeacher>
__device__ Pack<Slope, kWidth> gradient_of(const Pack<Sum, kWidth>& student, const Pack<Sum, kWidth>& teacher,
                                           const Slopes<Sum>& s, const Sum (&log_totals)[3], const Coefficients<Sum>& c,
                                           int chosen) {
  Pack<Slope, kWidth> gradient;
#pragma unroll
  for (int k = 0; k < kWidth; ++k) {
    const Sum x = student.values[k], log_p = x * c.scale - log_totals[0];
    Sum factor = s.constant, g = 0;
    if constexpr (kTeacher != Teacher::none) {
      const Sum log_q = teacher.values[k] * c.scale - log_totals[1];
      factor += s.slope * (log_p - log_q);
      if constexpr (kTeacher == Teacher::mixed) factor += s.mixed * (log_p - log_mixed(log_p, log_q, c) - s.from_mixture);
      if (s.forward != 0) g = -s.forward * power_of_two(log_q);
    }
    g += power_of_two(log_p) * factor;
    if (kTeacher != Teacher::none && s.plain != 0) g += s.plain * power_of_two(x * static_cast<Sum>(kLog2e) - log_totals[2]);
    if (k == chosen) g -= s.chosen;
    gradient.values[k] = static_cast<Slope>(g);
  }
  return gradient;
}

template <class Sum>
__device__ void store(void* to, std::int64_t row, Sum value) {
  if (to) static_cast<Sum*>(to)[row] = value;
}

// kCount: packs that a thread has under way or, where that is kHeld, all it has of its row.
template <class Slope, class Sum, int kWidth, Teacher kTeacher, int kCount>
__global__ void __launch_bounds__(kThreads, sizeof(Sum) == 8 ? 1 : kBlocks)
    loss_kernel(const CudaLossRows work, const Coefficients<Sum> c, int sharers) {
  using Row = Pack<Sum, kWidth>;
  const std::int64_t row = blockIdx.x / sharers, part = blockIdx.x % sharers, packs = work.vocabulary / kWidth;
  const Row* const logits = static_cast<const Row*>(work.logits) + row * packs;
  constexpr bool compared = kTeacher != Teacher::none;
  const Row* const teacher = compared ? static_cast<const Row*>(work.teacher) + row * packs : nullptr;
  const std::int64_t first = packs * part / sharers + threadIdx.x, end = packs * (part + 1) / sharers;
  const std::int64_t target = work.targets ? work.targets[row] : -1;
  const bool known = target >= 0 && target < work.vocabulary;
  const Sum chosen_logit = known ? reinterpret_cast<const Sum*>(logits)[target] : static_cast<Sum>(NAN);

  constexpr bool held = kCount == kHeld;
  Batch<Sum, kWidth, kCount> students;
  std::conditional_t<held && compared, SharedBatch<Sum, kWidth, kCount>, Batch<Sum, kWidth, kCount>> teachers;
  Sums<Sum> sums;
  for (std::int64_t i = first; i < end; i += kThreads * kCount) {
    if constexpr (compared) teachers.load(teacher, i, end);
    students.load(logits, i, end);
    teachers.wait();
#pragma unroll
    for (int b = 0; b < kCount; ++b) add<Sum, kWidth, kTeacher>(sums, students[b], teachers[b], c);
    if (held) break;
  }
  sums = over_row(sums);

  const Sum log_totals[3] = {sums.student.log_total(), sums.teacher.log_total(), sums.plain.log_total()};
  const Sum apart = static_cast<Sum>(kLn2) * (log_totals[0] - log_totals[1]),
            reverse_kl = c.cooling * sums.student.mean() - apart,
            log_sum = static_cast<Sum>(kLn2) * (c.separate ? log_totals[2] : log_totals[0]);  // at temperature 1
  if (part == 0 && threadIdx.x == 0) {
    if (work.targets) store<Sum>(work.cross_entropy, row, log_sum - chosen_logit);
    if (work.targets) store<Sum>(work.log_sums, row, log_sum);
    if (compared) store<Sum>(work.forward_kl, row, apart - c.cooling * sums.teacher.mean());
    if (compared) store<Sum>(work.reverse_kl, row, reverse_kl);
  }
  Sum from_mixture = 0;
  if constexpr (kTeacher == Teacher::mixed) {
    Sums<Sum> each;
    each.student.top = each.teacher.top = 0;
    for (std::int64_t i = first; i < end; i += kThreads) {
      add_from_mixture(each.student.total, each.teacher.total, logits[i], teacher[i], log_totals, c);
    }
#if __CUDA_ARCH__ >= 900
    release_cluster();
#endif
    each = over_row(each);
    from_mixture = each.student.total;
    if (part == 0 && threadIdx.x == 0)
      store<Sum>(work.jsd, row, static_cast<Sum>(kLn2) * (c.beta * each.teacher.total + (1 - c.beta) * from_mixture));
  }
  if (work.gradient) {
    auto* const gradients = static_cast<Pack<Slope, kWidth>*>(work.gradient) + row * packs;
    const Sum weight = static_cast<const Sum*>(work.weights)[row];
    Slopes<Sum> s(c, weight, compared ? reverse_kl : Sum(0), log_sum);
    s.mixed = weight * c.mixed * static_cast<Sum>(kLn2);
    s.from_mixture = from_mixture;
    for (std::int64_t i = first; i < end; i += kThreads * kCount) {
      if constexpr (!held) students.load(logits, i, end);
      if constexpr (!held && compared) teachers.load(teacher, i, end);
#pragma unroll
      for (int b = 0; b < kCount; ++b) {
        const std::int64_t place = i + b * kThreads;
        if (place >= end) break;
        const int chosen = known && place == target / kWidth ? static_cast<int>(target % kWidth) : kWidth;
        gradients[place] = gradient_of<Slope, Sum, kWidth, kTeacher>(students[b], teachers[b], s, log_totals, c, chosen);
      }
      if (held) break;
    }
  }
#if __CUDA_ARCH__ >= 900
  release_cluster();
#endif
}

// As many as leave each block no more than `slice` logits, if a cluster can have so many.
int sharers_of(std::int64_t vocabulary, std::int64_t slice) {
  int device = 0, major = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  int sharers = 1;
  while (major >= 9 && sharers < kCluster && vocabulary > slice * sharers) sharers *= 2;
  return sharers;
}

template <class Slope, class Sum, int kWidth, Teacher kTeacher, int kCount>
void launch_shared(const CudaLossRows& work, int sharers, cudaStream_t stream) {
  const auto kernel = loss_kernel<Slope, Sum, kWidth, kTeacher, kCount>;
  cudaLaunchAttribute cluster;
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim = {static_cast<unsigned>(sharers), 1, 1};
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(work.rows * sharers));
  config.blockDim = dim3(kThreads);
  config.stream = stream;
  config.attrs = &cluster;
  config.numAttrs = sharers > 1 ? 1 : 0;
  if constexpr (kCount == kHeld && kTeacher != Teacher::none) {
    config.dynamicSmemBytes = SharedBatch<Sum, kWidth, kCount>::kBytes;
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(config.dynamicSmemBytes));
  }
  const cudaError_t error = cudaLaunchKernelEx(&config, kernel, work, coefficients<Sum>(work), sharers);
  if (error != cudaSuccess) throw std::runtime_error(std::string("linear_loss: ") + cudaGetErrorString(error));
}

template <class Slope, class Sum, int kWidth, Teacher kTeacher>
void launch(const CudaLossRows& work, cudaStream_t stream) {
  if constexpr (kTeacher != Teacher::mixed && kWidth == 4) {
    constexpr std::int64_t most = kThreads * kHeld * kWidth;  // of a block, which is to be half full at least
    const int sharers = sharers_of(work.vocabulary, most);
    if (work.vocabulary > most / 2 && work.vocabulary <= most * sharers)
      return launch_shared<Slope, Sum, kWidth, kTeacher, kHeld>(work, sharers, stream);
  }
  launch_shared<Slope, Sum, kWidth, kTeacher, kBatch>(work, sharers_of(work.vocabulary, kSlice), stream);
}

template <class Slope, class Sum, Teacher kTeacher>
void launch(const CudaLossRows& work, cudaStream_t stream) {
  constexpr int width = 16 / sizeof(Sum);
  const bool packed = work.vocabulary % width == 0;
  packed ? launch<Slope, Sum, width, kTeacher>(work, stream) : launch<Slope, Sum, 1, kTeacher>(work, stream);
}

template <class Slope, class Sum>
void dispatch(const CudaLossRows& work, cudaStream_t stream) {
  if (!work.teacher) return launch<Slope, Sum, Teacher::none>(work, stream);
  work.mix.jsd == 0 ? launch<Slope, Sum, Teacher::compared>(work, stream) : launch<Slope, Sum, Teacher::mixed>(work, stream);
}

}  // namespace loss_cuda

void loss_rows_cuda(const CudaLossRows& work, void* stream) {
  if (work.rows == 0) return;
  const auto queue = static_cast<cudaStream_t>(stream);
  if (work.float64) return loss_cuda::dispatch<double, double>(work, queue);
  work.narrow ? loss_cuda::dispatch<__nv_bfloat16, float>(work, queue) : loss_cuda::dispatch<float, float>(work, queue);
}

}  // namespace molt::ops
