// The order in which samples are learned from: endless, a function of the seed alone, and any place of it found at once.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "data/sample_stream.h"

namespace molt {

// An endless stream: a finite one over and over, permuted anew each epoch where `shuffle`; an endless one as it is.
std::shared_ptr<const SampleStream> ordered_stream(std::shared_ptr<const SampleStream> stream, std::uint64_t seed, bool shuffle);

struct WeightedStream {
  std::shared_ptr<const SampleStream> stream;  // endless
  double weight;                               // share of the samples, relative to the others'
};
// Samples of all streams in proportion to their weights: each run of 1024 samples, from a multiple of 1024 on, holds weight *
// 1024 of each (rounded so that the count over many runs is exact), in an order shuffled by the seed. Each stream is read in its
// own order.
std::shared_ptr<const SampleStream> blended_stream(std::vector<WeightedStream> streams, std::uint64_t seed);

}  // namespace molt
