// Where the sequences of packed tensors begin, as cuDNN wants it: in elements of each tensor, for a fixed number of sequences.
#pragma once
#include <cstdint>

namespace molt::ops {

struct PackLayout {
  static constexpr int kMostTensors = 9;

  const std::int32_t* cu_queries;  // (sequences + 1) each, on the device
  const std::int32_t* cu_keys;
  std::int64_t sequences = 0;
  std::int64_t places = 0;  // at least `sequences`; those beyond get empty sequences at the end of the pack

  struct Tensor {
    std::int64_t row = 0;  // elements from one token to the next
    bool of_keys = false;
  };
  Tensor tensors[kMostTensors];
  int count = 0;

  std::int64_t* offsets = nullptr;  // (count, places + 1): the tensor's element where each sequence begins
  std::int32_t* lengths = nullptr;  // (2, places): of queries, of keys
};

// Fills offsets and lengths, in order on `stream` (a cudaStream_t).
void lay_out_pack(const PackLayout& layout, void* stream);

}  // namespace molt::ops
