#include "train/peak_flops.h"

#include <ATen/Functions.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "train/support.h"

namespace molt {
namespace {

TEST(PeakFlops, ArePublishedByName) {
  EXPECT_EQ(published_peak_flops("NVIDIA H100 80GB HBM3", at::kBFloat16), 989e12);
  EXPECT_EQ(published_peak_flops("NVIDIA H100 PCIe", at::kBFloat16), 756e12);
  EXPECT_EQ(published_peak_flops("NVIDIA H200", at::kBFloat16), 989e12);
  EXPECT_EQ(published_peak_flops("NVIDIA A100-SXM4-80GB", at::kBFloat16), 312e12);
  EXPECT_EQ(published_peak_flops("NVIDIA GeForce RTX 3060", at::kBFloat16), std::nullopt);
  EXPECT_EQ(published_peak_flops("NVIDIA H100 80GB HBM3", at::kFloat), std::nullopt);
}

TEST(PeakFlops, OfACpuAreMeasured) {
  const double measured = peak_flops(at::kCPU, at::kFloat).value();
  EXPECT_GT(measured, 1e8);
  EXPECT_LT(measured, 1e15);
}

using PeakFlopsOfARun = test::RunFolder;

TEST_F(PeakFlopsOfARun, AreTheConfiguredOnesOrNone) {
  LoopConfig config = test::short_loop();
  config.peak_tflops = 0.5;
  test::TinyRun(folder / "given", config).train();
  const Json line = test::lines_of(folder / "given/metrics.jsonl").front();
  EXPECT_DOUBLE_EQ(line["mfu"].get<double>(), line["flops_per_second"].get<double>() / 0.5e12);
  config.peak_tflops = 0;
  test::TinyRun(folder / "none", config).train();
  EXPECT_FALSE(test::lines_of(folder / "none/metrics.jsonl").front().contains("mfu"));
}

TEST(ObjectiveFlops, LeaveOutTheGradientsOfFrozenWeights) {
  const std::unique_ptr<Model> model = test::tiny_model();
  const auto train = [&](const std::function<bool(const std::string&)>& trainable) {
    flatten_trainable([&](const ParameterVisitor& visitor) { model->visit(visitor); }, trainable);
    return NextToken().flops(*model, 10);
  };
  const double forward = model->flops(10);
  EXPECT_EQ(train([](const std::string&) { return true; }), 3 * forward);
  const double down = 2.0 * 32 * 48;
  EXPECT_EQ(train([](const std::string& name) { return name != "layers.0.mlp.down.weight"; }), 3 * forward - down);
  model->blocks[0].down.adapters.push_back({"", at::zeros({2, 48}), at::zeros({32, 2}), 1});
  EXPECT_EQ(train([](const std::string& name) { return name != "layers.0.mlp.down.weight"; }),
            3 * forward - down + 3 * 2.0 * 2 * (48 + 32));
}

}  // namespace
}  // namespace molt
