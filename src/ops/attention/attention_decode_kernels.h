// What the GPU's kernels of generation are given: sizes, strides and raw pointers, no LibTorch. attention.h has the contracts.
#pragma once
#include <cstdint>

namespace molt::ops::decode {

#ifdef MOLT_CUDA
// Attention of the sequences that have one new token over their caches.
struct Arguments {
  bool bfloat16 = false;  // else float32: of q, caches and out
  std::int64_t sequences = 0, heads = 0, kv_heads = 0, head_size = 0;
  std::int64_t block_size = 0, max_blocks = 0;
  const void* q = nullptr;               // (tokens, heads, head_size)
  std::int64_t q_token = 0, q_head = 0;  // strides, in elements
  const void *k_cache = nullptr, *v_cache = nullptr;
  const std::int32_t *block_table = nullptr, *contexts = nullptr, *offsets = nullptr;  // offsets: cu_seqlens of the new tokens
  float scale = 1;
  std::int64_t window = 0;   // 0: none
  std::int64_t splits = 1;   // parts that each sequence's keys are divided into
  float* partial = nullptr;  // with splits > 1: partial_size() floats
  void* out = nullptr;       // (tokens, heads, head_size); rows of sequences with another number of new tokens are left alone
};

// As many parts as fill the current GPU, for sequences of at most `longest` keys.
std::int64_t splits_for(const Arguments& arguments, std::int64_t longest);
std::int64_t partial_size(const Arguments& arguments);
void cuda_attend(const Arguments& arguments, void* stream);

// Turns q and k by the table, and puts k and v into the caches.
struct Store {
  bool bfloat16 = false;
  std::int64_t tokens = 0, heads = 0, kv_heads = 0, head_size = 0, half = 0;  // half: values of the table's rows; 0: no turning
  const void* qkv = nullptr;  // (tokens, (heads + 2 kv_heads) * head_size), rows `stride` apart
  std::int64_t stride = 0;
  const float *cos = nullptr, *sin = nullptr;  // (tokens, half)
  const std::int64_t* slots = nullptr;         // negative: the token's k and v are dropped
  void *q = nullptr, *k_cache = nullptr, *v_cache = nullptr;
};
void cuda_store(const Store& store, void* stream);
#endif

}  // namespace molt::ops::decode
