// The CPU kernels of attention, for float and double. Blocks of scores stay in the caches; no (tokens, tokens) tensor is made.
#pragma once
#include <cstdint>
#include <limits>
#include <vector>

namespace molt::ops {

struct AttentionShape {
  std::int64_t heads, kv_heads, head_size;
  double scale;
  std::int64_t window;  // keys a token sees, itself included

  std::int64_t group() const { return heads / kv_heads; }
};
inline constexpr std::int64_t kNoWindow = std::numeric_limits<std::int64_t>::max() / 2;

// (tokens, heads, head_size) with strides in elements; the values of a head are adjacent.
template <class T>
struct HeadRows {
  T* data;
  std::int64_t token, head;

  T* at(std::int64_t t, std::int64_t h) const { return data + t * token + h * head; }
};

// Positions of a tile of the cache: (kv_heads, head_size, kTile). What decoding multiplies by one query or weight after the other
// lies beside each other, and a head's part of a tile is one piece of memory.
inline constexpr std::int64_t kTile = 16;

// The keys or values of one sequence: rows a stride apart, or tiles in the blocks of a paged cache.
template <class T>
struct ContextRows {
  HeadRows<const T> rows;
  const std::int32_t* blocks = nullptr;  // null: rows lie in order
  std::int64_t block_size = 0;           // of whole tiles

  // From one value of a row to the next.
  std::int64_t value_stride() const { return blocks ? kTile : 1; }
  const T* at(std::int64_t position, std::int64_t head) const {
    if (!blocks) return rows.at(position, head);
    const std::int64_t row = blocks[position / block_size] * block_size + position % block_size;
    return rows.at(row / kTile * kTile, head * kTile) + row % kTile;
  }
};

// The queries of one sequence: `count` tokens of the pack from `first`, at positions `context`, context + 1, …
template <class T>
struct QuerySpan {
  std::int64_t first, count, context;
  ContextRows<T> keys, values;
};

template <class T>
struct AttentionForward {
  AttentionShape shape;
  HeadRows<const T> q;
  HeadRows<T> out;
  T* logsumexp;         // (heads, tokens): log of the sum of exp(scores), for backward; may be null
  std::int64_t tokens;  // of the pack
  std::vector<QuerySpan<T>> spans;
};

template <class T>
struct AttentionBackward {
  AttentionShape shape;
  HeadRows<const T> q, out, gradient;  // gradient of out
  const T* logsumexp;
  std::int64_t tokens;
  std::vector<QuerySpan<T>> spans;  // context 0
  HeadRows<T> dq, dk, dv;           // dk and dv with kv_heads
};

void attention_forward_cpu(const AttentionForward<float>& work);
void attention_forward_cpu(const AttentionForward<double>& work);
void attention_backward_cpu(const AttentionBackward<float>& work);
void attention_backward_cpu(const AttentionBackward<double>& work);

// The same as forward without logsumexp, for spans of a few queries over a cache, which it reads in place. head_size is 8 or
// more.
void attention_decode_cpu(const AttentionForward<float>& work);
void attention_decode_cpu(const AttentionForward<double>& work);

}  // namespace molt::ops
