#include "base/random.h"

#include "base/error.h"

namespace molt {

namespace random_detail {

constexpr std::uint64_t golden_gamma = 0x9e3779b97f4a7c15;

// SplitMix64's finalizer: a bijection in which each input bit flips about half of the output bits.
std::uint64_t mix(std::uint64_t value) {
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
  value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
  return value ^ (value >> 31);
}

// FNV-1a, 64 bits.
std::uint64_t hash(std::string_view text) {
  std::uint64_t hash = 0xcbf29ce484222325;
  for (unsigned char byte : text) hash = (hash ^ byte) * 0x100000001b3;
  return hash;
}

}  // namespace random_detail

std::uint64_t derive_seed(std::uint64_t seed, std::string_view name, std::uint64_t index) {
  using namespace random_detail;
  const std::uint64_t named = mix(mix(seed + golden_gamma) ^ hash(name));
  return mix(named + golden_gamma * (index + 1));
}

std::uint64_t Random::next() {
  state_ += random_detail::golden_gamma;
  return random_detail::mix(state_);
}

double Random::uniform() {
  return static_cast<double>(next() >> 11) * 0x1p-53;
}

// Lemire's multiplication (2019): the high half of next() * bound; draws whose low half falls into the uneven rest are repeated.
std::int64_t Random::below(std::int64_t bound) {
  MOLT_CHECK(bound > 0, "bound ", bound);
  const auto range = static_cast<std::uint64_t>(bound);
  const std::uint64_t uneven = -range % range;
  while (true) {
    const auto product = static_cast<unsigned __int128>(next()) * range;
    if (static_cast<std::uint64_t>(product) >= uneven) return static_cast<std::int64_t>(product >> 64);
  }
}

}  // namespace molt
