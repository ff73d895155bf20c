#include "model/initialise.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

#include "base/random.h"

namespace molt {

namespace initialise_detail {

constexpr std::int64_t chunk = 1 << 14;  // numbers of one random stream, so that threads can share a tensor

// Fills the tensor by fill(random, begin, end) over chunks, each with a stream of its own.
template <class Fill>
at::Tensor drawn(at::IntArrayRef sizes, std::uint64_t seed, const Fill& fill) {
  at::Tensor result = at::empty(sizes, at::kFloat);
  auto* values = result.mutable_data_ptr<float>();
  const std::int64_t count = result.numel();
  at::parallel_for(0, (count + chunk - 1) / chunk, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      Random random(derive_seed(seed, "chunk", static_cast<std::uint64_t>(i)));
      fill(random, values + i * chunk, values + std::min(count, (i + 1) * chunk));
    }
  });
  return result;
}

}  // namespace initialise_detail

// Box and Muller (1958): two normal numbers from two uniform ones.
at::Tensor random_normal(at::IntArrayRef sizes, double standard_deviation, std::uint64_t seed) {
  return initialise_detail::drawn(sizes, seed, [&](Random& random, float* begin, float* end) {
    for (float* value = begin; value < end; value += 2) {
      const double radius = standard_deviation * std::sqrt(-2 * std::log(1 - random.uniform()));
      const double angle = 2 * M_PI * random.uniform();
      value[0] = static_cast<float>(radius * std::cos(angle));
      if (value + 1 < end) value[1] = static_cast<float>(radius * std::sin(angle));
    }
  });
}

at::Tensor random_uniform(at::IntArrayRef sizes, double low, double high, std::uint64_t seed) {
  return initialise_detail::drawn(sizes, seed, [&](Random& random, float* begin, float* end) {
    for (float* value = begin; value < end; ++value) *value = static_cast<float>(low + (high - low) * random.uniform());
  });
}

}  // namespace molt
