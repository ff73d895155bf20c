#include "infer/cache_pool.h"

#include <ATen/Functions.h>

#include "base/error.h"
#include "base/random.h"

namespace molt {

std::int64_t cache_bytes(const Model& model, std::int64_t tokens) {
  std::int64_t bytes = 0;
  for (const auto& entries : model.cache_spec()) {
    for (const CacheEntry& entry : entries) bytes += entry.bytes() * (entry.per == CacheEntry::Per::token ? tokens : 1);
  }
  return bytes;
}

std::int64_t CachePool::block_for(std::int64_t tokens) {
  constexpr std::int64_t multiple = 16;
  return (tokens + multiple - 1) / multiple * multiple;
}

CachePool::CachePool(const Model& model, std::int64_t sequences, std::int64_t tokens) : sequences_(sequences) {
  MOLT_CHECK(sequences > 0 && tokens > 0, sequences, " sequences of ", tokens, " tokens");
  block_size_ = block_for(tokens);
  for (const auto& entries : model.cache_spec()) {
    BlockCache& cache = caches_.emplace_back();
    for (const CacheEntry& entry : entries) {
      const bool per_token = entry.per == CacheEntry::Per::token;
      std::vector<std::int64_t> shape{sequences};
      if (per_token) shape.push_back(block_size_);
      shape.insert(shape.end(), entry.shape.begin(), entry.shape.end());
      cache.push_back(at::empty(shape, at::TensorOptions(model.device()).dtype(entry.dtype)));
    }
  }
  for (std::int64_t i = sequences; i-- > 0;) free_.push_back(static_cast<std::int32_t>(i));
}

std::optional<CachePool::Lease> CachePool::acquire() {
  if (free_.empty()) return std::nullopt;
  const std::int32_t slot = free_.back();
  free_.pop_back();
  return Lease{{slot}, slot};
}

void CachePool::release(const Lease& lease) {
  free_.push_back(static_cast<std::int32_t>(lease.state_slot));
}

void CachePool::fill_random(std::uint64_t seed) {
  const at::Device device = caches_.empty() || caches_[0].empty() ? at::kCPU : caches_[0][0].device();
  at::Generator generator = at::globalContext().defaultGenerator(device).clone();
  generator.set_current_seed(derive_seed(seed, "cache"));
  for (BlockCache& cache : caches_) {
    for (at::Tensor& entry : cache) {
      if (!device.is_cpu()) {
        entry.normal_(0, 0.1, generator);
        continue;
      }
      // One sequence's share stands for all: drawing gigabytes would take longer than what is measured.
      const at::Tensor share = at::randn(entry.sizes().slice(1), generator, at::TensorOptions(at::kFloat)).mul_(0.1);
      entry.copy_(share.unsqueeze(0).expand(entry.sizes()));
    }
  }
}

}  // namespace molt
