// Drawing tokens on a GPU, so that a token can be read by the next step before the host has seen it. What the kernels are given:
// raw pointers, no LibTorch. sampling.h has the rules.
#pragma once
#include <cstdint>

namespace molt {

// How one row is drawn, as it lies on the device.
struct Draw {
  std::int64_t row = 0;           // of the step's tokens, whose logits are meant
  float inverse_temperature = 0;  // 0: greedy
  std::int32_t top_k = 0;         // 0: all
  double top_p = 1;
  double u = 0;  // the random number
};

struct Drawn {
  std::int32_t token;
  float log_probability;  // not a number where the row is not finite
};

#ifdef MOLT_CUDA
struct DeviceSampling {
  bool bfloat16 = false;  // else float32
  std::int64_t rows = 0, vocabulary = 0;
  const void* logits = nullptr;  // (rows, vocabulary), contiguous
  const Draw* draws = nullptr;   // one a row; `row` is not read
  Drawn* drawn = nullptr;
};
// In order on `stream` (a cudaStream_t), as the next.
void sample_on_device(const DeviceSampling& sampling, void* stream);

// tokens[i] = drawn[follows[i]].token where follows[i] >= 0.
void take_drawn_tokens(std::int64_t* tokens, const std::int32_t* follows, std::int64_t count, const Drawn* drawn, void* stream);
#endif

}  // namespace molt
