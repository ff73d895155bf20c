// Memory of the caches of all sequences in flight. Every block of the model has its tensors here; a sequence holds some cache
// blocks for its entries a token, and one slot for its recurrent states.
#pragma once
#include <cstdint>
#include <optional>
#include <vector>

#include "model/model.h"

namespace molt {

// What the caches of one sequence of `tokens` tokens need, in bytes.
std::int64_t cache_bytes(const Model& model, std::int64_t tokens);

class CachePool {
 public:
  // Room for `sequences` of up to `tokens` tokens each, on the model's device. Each holds one cache block of that many tokens:
  // the contiguous layout. Whoever reads goes through blocks and slots, so that smaller blocks change nothing outside.
  CachePool(const Model& model, std::int64_t sequences, std::int64_t tokens);

  struct Lease {
    std::vector<std::int32_t> blocks;  // position p lies in blocks[p / block_size]
    std::int64_t state_slot = 0;
  };
  // Nothing while every block is held. What is leased may hold what another sequence left there (see Step).
  std::optional<Lease> acquire();
  void release(const Lease& lease);

  std::int64_t block_size() const { return block_size_; }
  std::int64_t sequences() const { return sequences_; }  // at most
  // One a layer, as Model::extend takes them.
  std::vector<BlockCache>& caches() { return caches_; }
  // The length that blocks for sequences of `tokens` tokens have.
  static std::int64_t block_for(std::int64_t tokens);
  // Writes small random numbers to every entry: what a measurement starts from that has no time to prefill.
  void fill_random(std::uint64_t seed);

 private:
  std::int64_t sequences_, block_size_;
  std::vector<BlockCache> caches_;
  std::vector<std::int32_t> free_;  // the last one is taken next
};

}  // namespace molt
