// Compares with what another implementation computed: test_parity.py fills the folder that MOLT_PARITY names, one case a folder
// with a `model` and an `expected.safetensors` of tokens (sequences, length), logits (sequences, length, vocabulary) and greedy
// (sequences, length + continuation).
#include <ATen/Functions.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>

#include "formats/hugging_face.h"
#include "formats/safetensors.h"

namespace molt {
namespace parity_test {

// One sequence a row of `tokens`, packed.
PackedBatch pack(const at::Tensor& tokens) {
  std::vector<PackedBatch::Sample> samples(static_cast<std::size_t>(tokens.size(0)));
  for (std::int64_t row = 0; row < tokens.size(0); ++row) {
    for (std::int64_t i = 0; i < tokens.size(1); ++i) {
      samples[static_cast<std::size_t>(row)].tokens.push_back(static_cast<std::int32_t>(tokens[row][i].item<std::int64_t>()));
    }
  }
  return PackedBatch::of(samples);
}

at::Tensor logits_of(const Model& model, const at::Tensor& tokens) {
  return model.logits(model.forward(pack(tokens))).view({tokens.size(0), tokens.size(1), -1});
}

TEST(Parity, LogitsAndGreedyContinuations) {
  const char* folder = std::getenv("MOLT_PARITY");
  if (!folder) GTEST_SKIP() << "MOLT_PARITY is not set";
  int cases = 0;
  for (const auto& entry : fs::directory_iterator(folder)) {
    SCOPED_TRACE(entry.path().filename().string());
    const SafetensorsFile expected = SafetensorsFile::open(entry.path() / "expected.safetensors");
    const auto model = load_model(entry.path() / "model");
    const at::Tensor logits = logits_of(*model, expected.tensor("tokens"));
    const at::Tensor reference = expected.tensor("logits");
    ASSERT_EQ(logits.sizes(), reference.sizes());
    const double difference = (logits - reference).abs().max().item<double>();
    EXPECT_LT(difference, 1e-4);
    RecordProperty(entry.path().filename().string(), std::to_string(difference));

    at::Tensor greedy = expected.tensor("tokens");
    const at::Tensor continued = expected.tensor("greedy");
    while (greedy.size(1) < continued.size(1)) {
      const at::Tensor next = logits_of(*model, greedy).select(1, -1).argmax(-1, true);
      greedy = at::cat({greedy, next}, 1);
    }
    EXPECT_TRUE(at::equal(greedy, continued));
    ++cases;
  }
  EXPECT_GT(cases, 0);
}

// What molt writes, for another implementation to read: MOLT_PARITY_EXPORT names the folder to fill from the cases' models.
TEST(Parity, Exports) {
  const char* folder = std::getenv("MOLT_PARITY");
  const char* target = std::getenv("MOLT_PARITY_EXPORT");
  if (!folder || !target) GTEST_SKIP() << "MOLT_PARITY or MOLT_PARITY_EXPORT is not set";
  for (const auto& entry : fs::directory_iterator(folder)) {
    const fs::path source = entry.path() / "model";
    const auto model = load_model(source, {.dtype = stored_dtype(source)});
    export_model(*model, fs::path(target) / entry.path().filename(), {.like = source});
  }
}

}  // namespace parity_test
}  // namespace molt
