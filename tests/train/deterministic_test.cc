// Training with `deterministic: true`: two runs with one seed end with the same weights, bit for bit, on every device.
#include "train/deterministic.h"

#include <ATen/Context.h>
#include <ATen/Functions.h>

#include "ops/devices.h"
#include "train/support.h"

namespace molt::test {

namespace deterministic_test {

std::vector<at::Tensor> weights_after(const fs::path& folder, at::Device device, at::ScalarType dtype) {
  LoopConfig loop = short_loop();
  loop.deterministic = true;
  loop.steps = 12;
  loop.micro_batch_tokens = 2048;
  TinyRun run(folder, loop);
  run.model->to(device, dtype);
  run.train();
  std::vector<at::Tensor> weights;
  for (const Parameter& parameter : run.model->parameters()) weights.push_back(parameter.value.detach().cpu().clone());
  return weights;
}

class Deterministic : public RunFolder {};

TEST_F(Deterministic, RunsRepeatBitForBit) {
  for (const at::Device device : test_devices())
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      if (device.is_cpu() && dtype == at::kBFloat16) continue;
      const std::string name = concat(device.str(), "-", c10::toString(dtype));
      const auto first = weights_after(folder / (name + "-first"), device, dtype);
      const auto second = weights_after(folder / (name + "-second"), device, dtype);
      ASSERT_EQ(first.size(), second.size());
      for (std::size_t i = 0; i < first.size(); ++i) EXPECT_TRUE(first[i].equal(second[i])) << name << ", parameter " << i;
    }
}

TEST(DeterministicScope, LeavesLibTorchAsItWas) {
  const auto wanted = [] { return at::globalContext().deterministicAlgorithms(); };
  const bool before = wanted(), fill = at::globalContext().deterministicFillUninitializedMemory();
  {
    const DeterministicScope scope(true);
    EXPECT_TRUE(wanted());
    const DeterministicScope inner(false);
    EXPECT_TRUE(wanted());
  }
  EXPECT_EQ(wanted(), before);
  EXPECT_EQ(at::globalContext().deterministicFillUninitializedMemory(), fill);
}

}  // namespace deterministic_test

}  // namespace molt::test
