// Attention over a paged cache: prefill in chunks and one-token decode give what attention over the whole sequence gives.
#include <algorithm>

#include "ops/attention/attention.h"
#include "ops/busy_threads.h"
#include "ops/compare.h"
#include "ops/devices.h"

namespace molt::ops {
namespace attention_cache_test {

using Window = std::optional<std::int64_t>;

struct Shape {
  std::int64_t heads, kv_heads, head_size, block_size;
};

// Sequences that grow in a paged cache whose blocks are handed out from the end, so that no sequence lies in order.
class Cache {
 public:
  Cache(const Shape& shape, std::int64_t sequences, std::int64_t longest, at::TensorOptions options)
      : shape_(shape), per_sequence_((longest + shape.block_size - 1) / shape.block_size), lens_(sequences, 0) {
    const std::int64_t blocks = sequences * per_sequence_;
    k = at::full({blocks, shape.block_size, shape.kv_heads, shape.head_size}, NAN, options);
    v = at::full_like(k, NAN);
    table_ = (blocks - 1 - at::arange(blocks, at::kInt)).view({sequences, per_sequence_});
  }

  // Appends fresh tokens (k, v of all sequences end to end) and attends to all.
  at::Tensor extend(const TestTensors& qkv, const std::vector<std::int32_t>& lengths, double scale, Window window) {
    std::vector<std::int64_t> slots;
    for (std::size_t i = 0; i < lengths.size(); ++i)
      for (std::int64_t p = lens_[i]; p < lens_[i] + lengths[i]; ++p)
        slots.push_back(table_[i][p / shape_.block_size].item<std::int64_t>() * shape_.block_size + p % shape_.block_size);
    const at::Device device = k.device();
    store_kv(qkv[1], qkv[2], k, v, at::tensor(slots, at::kLong).to(device));
    const PagedContext context{at::tensor(lens_, at::kInt).to(device), lens_, table_.to(device)};
    const Sequences fresh = Sequences::of(lengths, device);
    const at::Tensor out = attention_with_cache(qkv[0], k, v, fresh, context, scale, window);
    EXPECT_LT(relative_error(attention_with_cache_composite(qkv[0], k, v, fresh, context, scale, window), out),
              out.scalar_type() == at::kBFloat16 ? 3e-2 : 2e-5);
    for (std::size_t i = 0; i < lengths.size(); ++i) lens_[i] += lengths[i];
    return out;
  }

  at::Tensor k, v;

 private:
  Shape shape_;
  std::int64_t per_sequence_;
  std::vector<std::int32_t> lens_;
  at::Tensor table_;
};

// Feeds sequences step by step (steps[s][i] new tokens of sequence i in step s) and compares with attention over each as a whole.
void expect_whole(Shape shape, const std::vector<std::vector<std::int32_t>>& steps, Window window, at::TensorOptions options) {
  if (options.device().is_cpu()) shape.block_size = (shape.block_size + 15) / 16 * 16;
  SCOPED_TRACE(testing::Message() << "heads " << shape.heads << "/" << shape.kv_heads << " of " << shape.head_size
                                  << ", blocks of " << shape.block_size << ", window " << window.value_or(0) << ", " << options);
  const std::size_t sequences = steps[0].size();
  std::vector<std::int32_t> totals(sequences, 0);
  for (const auto& step : steps)
    for (std::size_t i = 0; i < sequences; ++i) totals[i] += step[i];
  const Sequences whole = Sequences::of(totals, options.device());
  const auto make = [&](std::int64_t heads, std::uint64_t seed) {
    return test_normal({whole.tokens(), heads, shape.head_size}, seed).to(options);
  };
  const TestTensors all{make(shape.heads, 1), make(shape.kv_heads, 2), make(shape.kv_heads, 3)};
  const at::Tensor expected = attention(all[0], all[1], all[2], whole, 0.3, window);

  Cache cache(shape, sequences, *std::max_element(totals.begin(), totals.end()), options);
  std::vector<std::int64_t> done(sequences, 0);
  for (const auto& step : steps) {
    const auto fresh = [&](const at::Tensor& tensor) {
      TestTensors parts;
      for (std::size_t i = 0; i < sequences; ++i)
        parts.push_back(tensor.slice(0, whole.offsets[i] + done[i], whole.offsets[i] + done[i] + step[i]));
      return at::cat(parts);
    };
    const at::Tensor found = cache.extend({fresh(all[0]), fresh(all[1]), fresh(all[2])}, step, 0.3, window);
    EXPECT_LT(relative_error(found, fresh(expected)), options.dtype() == at::kBFloat16 ? 3e-2 : 2e-5);
    for (std::size_t i = 0; i < sequences; ++i) done[i] += step[i];
  }
}

TEST(AttentionWithCache, StepsGiveWhatTheWholeGives) {
  const std::vector<std::vector<std::int32_t>> mixed{{7, 1, 30}, {1, 1, 1}, {20, 1, 4}, {1, 0, 140}, {2, 5, 1}, {1, 1, 1}};
  for (const at::Device device : test_devices())
    for (const at::ScalarType dtype : {at::kFloat, at::kDouble})
      for (const Shape& shape : {Shape{8, 4, 8, 256},
                                 {8, 4, 8, 16},
                                 {4, 2, 32, 3},
                                 {4, 1, 64, 48},
                                 {2, 2, 12, 5},
                                 {3, 1, 128, 1},
                                 {3, 3, 8, 32},
                                 {6, 2, 20, 16},
                                 {2, 1, 4, 16}})
        for (const Window window : {Window(), Window(1), Window(10), Window(1000)})
          expect_whole(shape, mixed, window, at::TensorOptions(device).dtype(dtype));
}

TEST(AttentionWithCache, HalfPrecisionIsClose) {
  for (const at::Device device : test_devices()) {
    for (const Window window : {Window(), Window(20)}) {
      for (const Shape& shape :
           std::vector<Shape>{{4, 2, 32, 16}, {8, 2, 64, 16}, {32, 8, 128, 48}, {12, 1, 128, 64}, {6, 3, 128, 7}})
        expect_whole(shape, {{40, 3}, {1, 1}, {1, 1}, {5, 0}, {1, 1}}, window, at::TensorOptions(device).dtype(at::kBFloat16));
    }
  }
}

TEST(AttentionWithCache, LongContextsAreDividedAmongBlocks) {
  for (const at::Device device : test_devices()) {
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16})
      expect_whole({8, 2, 64, 2048}, {{1700, 9, 500}, {1, 1, 1}, {1, 1, 1}}, std::nullopt,
                   at::TensorOptions(device).dtype(dtype));
  }
}

TEST(AttentionWithCache, LongContextsUseAllThreads) {
  const at::Tensor cache = at::randn({256, 16, 4, 64}), q = at::randn({1, 8, 64});
  const std::vector<std::int32_t> lens{4000};
  const PagedContext context{at::tensor(lens, at::kInt), lens, at::arange(256, at::kInt).view({1, 256})};
  const Sequences fresh = Sequences::of({1});
  const int threads = few_threads();
  EXPECT_EQ(busy_threads([&] {
              for (int i = 0; i < 200; ++i) attention_with_cache(q, cache, cache, fresh, context, 0.1);
            }),
            threads);
}

TEST(AttentionWithCache, RefusesBlocksOfNoWholeTilesOnTheCpu) {
  const at::Tensor cache = at::zeros({2, 24, 1, 8});
  const std::vector<std::int32_t> lens{4};
  const PagedContext context{at::tensor(lens, at::kInt), lens, at::zeros({1, 1}, at::kInt)};
  EXPECT_THROW(attention_with_cache(at::zeros({1, 2, 8}), cache, cache, Sequences::of({1}), context, 1), std::logic_error);
}

TEST(AttentionWithCache, NoTokensGiveNothing) {
  const at::Tensor cache = at::zeros({2, 16, 1, 8});
  const std::vector<std::int32_t> lens{3};
  const PagedContext context{at::tensor(lens, at::kInt), lens, at::zeros({1, 1}, at::kInt)};
  EXPECT_EQ(attention_with_cache(at::zeros({0, 2, 8}), cache, cache, Sequences::of({0}), context, 1).size(0), 0);
}

TEST(AttentionWithCache, RefusesMoreTokensThanItsBlocksHold) {
  const at::Tensor cache = at::zeros({2, 16, 1, 8});
  const std::vector<std::int32_t> lens{16};
  const PagedContext context{at::tensor(lens, at::kInt), lens, at::zeros({1, 1}, at::kInt)};
  EXPECT_THROW(attention_with_cache(at::zeros({1, 2, 8}), cache, cache, Sequences::of({1}), context, 1), std::logic_error);
}

TEST(StoreKv, WritesRowsToTheirSlots) {
  for (const at::Device device : test_devices()) {
    const at::TensorOptions options = at::TensorOptions(device).dtype(at::kFloat);
    const at::Tensor k_cache = at::zeros({3, 16, 2, 4}, options), v_cache = at::zeros_like(k_cache);
    const at::Tensor kv = at::arange(32, options).view({2, 4, 4});
    store_kv(kv.slice(1, 0, 2), kv.slice(1, 2, 4), k_cache, v_cache, at::tensor({41, 0}, at::kLong).to(device));
    EXPECT_TRUE(cache_rows(k_cache)[41].equal(kv[0].slice(0, 0, 2)));
    EXPECT_TRUE(cache_rows(v_cache)[0].equal(kv[1].slice(0, 2, 4)));
    EXPECT_EQ(k_cache.ne(0).sum().item<int>(), 15);  // one of the 16 values written is 0
  }
  EXPECT_THROW(store_kv(at::ones({1, 1, 4}), at::ones({1, 1, 4}), at::ones({1, 16, 1, 4}), at::ones({1, 16, 1, 4}),
                        at::tensor({16}, at::kLong)),
               std::logic_error);
}

TEST(StoreQkv, IsRotationThenStoring) {
  for (const at::Device device : test_devices()) {
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kDouble}) {
      if (device.is_cuda() && dtype == at::kDouble) continue;
      const at::TensorOptions options = at::TensorOptions(device).dtype(dtype);
      for (const std::int64_t turned : {0, 6, 12}) {
        const at::Tensor qkv = test_normal({5, 8 * 12}, 1).to(options),
                         slots = at::tensor({7, 0, 3, 11, 2}, at::kLong).to(device);
        RotaryTable table;
        if (turned > 0)
          table =
              rotary_table({rotary_frequencies(turned, 100, device), 1}, at::tensor({0, 5, 90, 3, 4000}, at::kLong).to(device));
        const at::Tensor k = at::full({3, 16, 2, 12}, 9, options), v = at::full_like(k, 9), k_expected = k.clone(),
                         v_expected = v.clone();
        const at::Tensor q = store_qkv(qkv, 4, table, k, v, slots);
        const QueryKeyValue parts = rotary_qkv(qkv, 4, 2, table);
        store_kv(parts.k, parts.v, k_expected, v_expected, slots);
        const double tolerance = dtype == at::kBFloat16 ? 5e-3 : 1e-6;
        EXPECT_LT(relative_error(q, parts.q), tolerance);
        EXPECT_LT(relative_error(k, k_expected), tolerance);
        EXPECT_TRUE(v.equal(v_expected));
      }
    }
  }
  const at::Tensor cache = at::ones({1, 16, 1, 4});
  EXPECT_THROW(store_qkv(at::ones({1, 12}), 1, {}, cache, cache.clone(), at::tensor({16}, at::kLong)), std::logic_error);
}

}  // namespace attention_cache_test
}  // namespace molt::ops
