// Causal attention with grouped queries on packed sequences, and the same over a paged cache of keys and values.
//
// Query head h reads key and value head h / (heads / kv_heads). Token t of a sequence sees tokens s <= t of the same sequence
// and, with a window w, only those with t - s < w: itself and w - 1 before it (Hugging Face's sliding_window). Scores are scale *
// q.k, softmax is fp32.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <span>

#include "ops/rotary/rotary.h"
#include "ops/sequences.h"

namespace molt::ops {

// q (tokens, heads, head_size), k and v (tokens, kv_heads, head_size), one dtype, head_size values of a head adjacent in memory;
// rows and heads may be strided, so parts of one projection need no copy. Result (tokens, heads, head_size), contiguous. scale is
// usually head_size^-0.5; window >= 1. No (tokens, tokens) tensor is made over the pack. Differentiable in q, k and v: kept for
// backward are the inputs, the result and one number a (head, token).
at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const Sequences& sequences, double scale,
                     std::optional<std::int64_t> window = std::nullopt);

// Where the earlier tokens of each sequence lie in a paged cache (blocks, block_size, kv_heads, head_size): position p of
// sequence s is row p % block_size of block block_table[s][p / block_size]. A contiguous cache is the case of one block a
// sequence. How rows lie in the memory of a cache is the business of the functions below: for float and double on the CPU in
// tiles of 16 positions, (kv_heads, head_size, 16), of which a block must be a multiple; elsewhere in order.
struct PagedContext {
  at::Tensor context_lens;             // int32 (sequences): tokens of the sequence already in the cache before this step
  std::span<const std::int32_t> lens;  // the same numbers on the host
  at::Tensor block_table;              // int32 (sequences, max_blocks), contiguous, on the device of the cache
};

// Attention of each sequence's new tokens (q, laid end to end by `fresh`) over its whole context: context_lens[s] earlier tokens
// and the new ones, whose k and v store_kv has already written to the cache. New token i of sequence s stands at position
// context_lens[s] + i. One-token decode and chunked prefill alike. Result (tokens, heads, head_size). Not differentiable. On a
// GPU the lengths of sequences with one new token are read on the device alone, and a negative one gives zeros.
at::Tensor attention_with_cache(const at::Tensor& q, const at::Tensor& k_cache, const at::Tensor& v_cache, const Sequences& fresh,
                                const PagedContext& context, double scale, std::optional<std::int64_t> window = std::nullopt);

// Heads of up to this size have kernels of their own for one new token on a GPU; others go through LibTorch's, which must know
// the lengths on the host.
constexpr std::int64_t kLargestDecodeHead = 256;

// Writes row t of k and v (tokens, kv_heads, head_size) into row slot_mapping[t] of the caches seen as (blocks * block_size,
// kv_heads, head_size). slot_mapping int64 (tokens), no slot twice.
void store_kv(const at::Tensor& k, const at::Tensor& v, const at::Tensor& k_cache, const at::Tensor& v_cache,
              const at::Tensor& slot_mapping);

// The rows of a cache in order, (blocks * block_size, kv_heads, head_size): a copy where they lie in tiles.
at::Tensor cache_rows(const at::Tensor& cache);

// What a step of generation does with its projection qkv (tokens, (heads + 2 kv_heads) * head_size): rotary_qkv, then store_kv of
// the keys and values; returns the queries (tokens, heads, head_size). On a GPU in one kernel, which drops the keys and values of
// tokens whose slot is negative. Not differentiable.
at::Tensor store_qkv(const at::Tensor& qkv, std::int64_t heads, const RotaryTable& table, const at::Tensor& k_cache,
                     const at::Tensor& v_cache, const at::Tensor& slot_mapping);

// The formulas in plain LibTorch calls, one sequence after another with a full mask: the reference in tests, and the way for
// dtypes without a kernel.
at::Tensor attention_composite(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const Sequences& sequences,
                               double scale, std::optional<std::int64_t> window = std::nullopt);
at::Tensor attention_with_cache_composite(const at::Tensor& q, const at::Tensor& k_cache, const at::Tensor& v_cache,
                                          const Sequences& fresh, const PagedContext& context, double scale,
                                          std::optional<std::int64_t> window = std::nullopt);

}  // namespace molt::ops
