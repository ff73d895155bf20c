// Random numbers that are the same on every machine: explicit seeds, streams derived by name, distributions of our own.
#pragma once
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace molt {

// A seed for a part of the work, independent of its siblings: derive_seed(seed, "shuffle", epoch).
std::uint64_t derive_seed(std::uint64_t seed, std::string_view name, std::uint64_t index = 0);

// SplitMix64 (Steele, Lea, Flood 2014). The whole state is one number, so it can be saved and restored.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next();
  double uniform();                        // in [0, 1), 53 bits
  std::int64_t below(std::int64_t bound);  // in [0, bound), unbiased; bound > 0
  std::int64_t between(std::int64_t low, std::int64_t high) { return low + below(high - low + 1); }  // both ends included
  template <class T>
  void shuffle(std::vector<T>& values) {
    for (std::size_t i = values.size(); i > 1; --i) std::swap(values[i - 1], values[below(static_cast<std::int64_t>(i))]);
  }
  std::uint64_t state() const { return state_; }

 private:
  std::uint64_t state_;
};

}  // namespace molt
