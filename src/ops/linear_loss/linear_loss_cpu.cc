#include "ops/linear_loss/linear_loss_cpu.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

#include "ops/lanes.h"

namespace molt::ops {

namespace loss_kernels {

// Stands for the logits beyond a row's end: its exponential is nothing, and student and teacher agree on it.
constexpr double kNothing = -1e30;

template <class T>
MOLT_INLINE Lanes<T> load_logits(const T* row, std::int64_t left) {
  if (left >= kLanes<T>) return load(row);
  Lanes<T> value = splat(static_cast<T>(kNothing));
  for (int i = 0; i < left; ++i) value[i] = row[i];
  return value;
}

// A distribution over the vocabulary: log p[v] = logits[v] * scale - log_total.
template <class T>
struct Distribution {
  const T* logits;
  T scale, log_total;

  MOLT_INLINE Lanes<T> log_p(std::int64_t v, std::int64_t left) const {
    return load_logits(logits + v, left) * scale - log_total;
  }
};

template <class T>
MOLT_INLINE T largest(const T* row, std::int64_t vocabulary) {
  Lanes<T> most = load_logits(row, vocabulary);
  for (std::int64_t v = kLanes<T>; v < vocabulary; v += kLanes<T>) most = larger(most, load_logits(row + v, vocabulary - v));
  T result = most[0];
  for (int i = 1; i < kLanes<T>; ++i) result = std::max(result, most[i]);
  return result;
}

template <class T>
MOLT_INLINE Distribution<T> distribution(const T* row, std::int64_t vocabulary, T maximum, double temperature) {
  const T scale = static_cast<T>(1 / temperature), shift = maximum * scale;
  Lanes<T> total = {};
  for (std::int64_t v = 0; v < vocabulary; v += kLanes<T>)
    total += exp(Lanes<T>(load_logits(row + v, vocabulary - v) * scale - shift));
  return {row, scale, shift + std::log(sum(total))};
}

template <class T>
struct Divergences {
  T forward, reverse;  // of the teacher from another distribution, and of the student
};

// Of one row: sum of p_t (log p_t - log p_s) and sum of p_s (log p_s - log p_t).
template <class T>
MOLT_INLINE Divergences<T> divergences(const Distribution<T>& student, const Distribution<T>& teacher, std::int64_t vocabulary) {
  Lanes<T> forward = {}, reverse = {};
  for (std::int64_t v = 0; v < vocabulary; v += kLanes<T>) {
    const Lanes<T> s = student.log_p(v, vocabulary - v), t = teacher.log_p(v, vocabulary - v), difference = s - t;
    forward -= exp(t) * difference;
    reverse += exp(s) * difference;
  }
  return {sum(forward), sum(reverse)};
}

// m = beta teacher + (1 - beta) student, in which each of them is to be found to some part.
template <class T>
struct Mixture {
  T log_beta, log_rest;
  explicit Mixture(double beta) : log_beta(static_cast<T>(std::log(beta))), log_rest(static_cast<T>(std::log1p(-beta))) {}

  MOLT_INLINE Lanes<T> log_p(const Lanes<T>& student, const Lanes<T>& teacher) const {
    const Lanes<T> a = student + log_rest, b = teacher + log_beta, apart = a - b;
    return larger(a, b) + log1p_of_fraction(exp(apart > 0 ? -apart : apart));
  }
};

// KL(teacher || m) and KL(student || m) of one row.
template <class T>
MOLT_INLINE Divergences<T> from_mixture(const Mixture<T>& mixture, const Distribution<T>& student, const Distribution<T>& teacher,
                                        std::int64_t vocabulary) {
  Lanes<T> of_teacher = {}, of_student = {};
  for (std::int64_t v = 0; v < vocabulary; v += kLanes<T>) {
    const Lanes<T> s = student.log_p(v, vocabulary - v), t = teacher.log_p(v, vocabulary - v), m = mixture.log_p(s, t);
    of_teacher += exp(t) * (t - m);
    of_student += exp(s) * (s - m);
  }
  return {sum(of_teacher), sum(of_student)};
}

// d CE / d logit[v] = p[v] - [v is the target], at temperature 1; with s = log(sum of exp(logits)), d s^2 / d logit[v] = 2 s
// p[v]. This is the factor of p[v] in both.
template <class T>
MOLT_INLINE T plain_slope(const LossRows<T>& work, const Distribution<T>& plain, T weight) {
  return weight * static_cast<T>(work.mix.cross_entropy + 2 * work.mix.z * static_cast<double>(plain.log_total));
}

template <class T>
MOLT_INLINE void cross_entropy_gradient(const LossRows<T>& work, std::int64_t row, const Distribution<T>& student, T weight) {
  const T slope = plain_slope(work, student, weight);
  T* logits = work.logits + row * work.vocabulary;
  for (std::int64_t v = 0; v < work.vocabulary; v += kLanes<T>) {
    const std::int64_t left = work.vocabulary - v;
    store(logits + v, Lanes<T>(exp(student.log_p(v, left)) * slope), left);
  }
  logits[work.targets[row]] -= weight * static_cast<T>(work.mix.cross_entropy);
}

// With p at the temperature: d KL(t || s) / d logit[v] = (p_s - p_t) / temperature and
// d KL(s || t) / d logit[v] = p_s (log p_s - log p_t - KL(s || t)) / temperature.
// d JSD / d logit[v] is 1 - beta times the latter with m in t's place: what m itself changes by cancels out.
template <class T>
MOLT_INLINE void mixed_gradient(const LossRows<T>& work, std::int64_t row, const Distribution<T>& plain,
                                const Distribution<T>& student, const Distribution<T>& teacher, T reverse_kl, T from_m) {
  const T weight = work.weights[row], cooled = weight / static_cast<T>(work.mix.temperature);
  const T ce = static_cast<T>(work.mix.cross_entropy) * weight,
          plain_factor = work.targets ? plain_slope(work, plain, weight) : 0;
  const T forward = static_cast<T>(work.mix.forward_kl) * cooled, reverse = static_cast<T>(work.mix.reverse_kl) * cooled;
  const T jsd = static_cast<T>(work.mix.jsd * (1 - work.mix.beta)) * cooled;
  const Mixture<T> mixture(work.mix.beta);
  T* logits = work.logits + row * work.vocabulary;
  for (std::int64_t v = 0; v < work.vocabulary; v += kLanes<T>) {
    const std::int64_t left = work.vocabulary - v;
    const Lanes<T> s = student.log_p(v, left), t = teacher.log_p(v, left), p = exp(s);
    Lanes<T> slope = p * (forward + reverse * (s - t - reverse_kl));
    if (forward != 0) slope -= exp(t) * forward;
    if (jsd != 0) slope += p * jsd * (s - mixture.log_p(s, t) - from_m);
    if (plain_factor != 0) slope += exp(plain.log_p(v, left)) * plain_factor;
    store(logits + v, slope, left);
  }
  if (ce != 0) logits[work.targets[row]] -= ce;
}

template <class T>
MOLT_INLINE void loss_row(const LossRows<T>& work, std::int64_t row) {
  const std::int64_t vocabulary = work.vocabulary;
  const T* logits = work.logits + row * vocabulary;
  const T maximum = largest(logits, vocabulary);
  Distribution<T> plain{};
  if (work.targets) {
    plain = distribution(logits, vocabulary, maximum, 1);
    work.cross_entropy[row] = plain.log_total - logits[work.targets[row]];
    if (work.log_sums) work.log_sums[row] = plain.log_total;
  }
  if (!work.teacher) {
    if (work.gradient) cross_entropy_gradient(work, row, plain, work.weights[row]);
    return;
  }
  const T* teacher_logits = work.teacher + row * vocabulary;
  const double temperature = work.mix.temperature;
  const Distribution<T> teacher = distribution(teacher_logits, vocabulary, largest(teacher_logits, vocabulary), temperature);
  const Distribution<T> student =
      work.targets && temperature == 1 ? plain : distribution(logits, vocabulary, maximum, temperature);
  const Divergences<T> divergence = divergences(student, teacher, vocabulary);
  if (work.forward_kl) work.forward_kl[row] = divergence.forward;
  if (work.reverse_kl) work.reverse_kl[row] = divergence.reverse;
  T from_m = 0;
  if (work.jsd) {
    const double beta = work.mix.beta;
    const Divergences<T> each = from_mixture(Mixture<T>(beta), student, teacher, vocabulary);
    work.jsd[row] = static_cast<T>(beta) * each.forward + static_cast<T>(1 - beta) * each.reverse;
    from_m = each.reverse;
  }
  if (work.gradient) mixed_gradient(work, row, plain, student, teacher, divergence.reverse, from_m);
}

MOLT_CLONES void rows(const LossRows<float>& work, std::int64_t begin, std::int64_t end) {
  for (std::int64_t row = begin; row < end; ++row) loss_row(work, row);
}
MOLT_CLONES void rows(const LossRows<double>& work, std::int64_t begin, std::int64_t end) {
  for (std::int64_t row = begin; row < end; ++row) loss_row(work, row);
}

template <class T>
void run(const LossRows<T>& work) {
  const std::int64_t grain = std::max<std::int64_t>(1, 4096 / work.vocabulary);
  at::parallel_for(0, work.rows, grain, [&](std::int64_t begin, std::int64_t end) { rows(work, begin, end); });
}

}  // namespace loss_kernels

void loss_rows_cpu(const LossRows<float>& work) {
  loss_kernels::run(work);
}
void loss_rows_cpu(const LossRows<double>& work) {
  loss_kernels::run(work);
}

}  // namespace molt::ops
