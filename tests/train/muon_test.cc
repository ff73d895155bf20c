#include "train/muon.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>

#include <cmath>
#include <set>

#include "formats/safetensors.h"
#include "train/support.h"

namespace molt {

namespace muon_test {

at::Tensor waves(std::vector<std::int64_t> shape, double phase) {
  std::int64_t count = 1;
  for (const std::int64_t size : shape) count *= size;
  const at::Tensor i = at::arange(count, at::kDouble);
  return ((i * 0.7 + phase).sin() + (i * i * 0.013).cos()).view(shape);
}

MuonStep a_step(double scale = 1.0, double broken = 0.0) {
  return {0.1, 0.9, 0.25, at::full({}, scale), at::full({}, broken)};
}

}  // namespace muon_test

using namespace muon_test;

TEST(Muon, OrthogonalizedKeepsDirectionsAndEvensSingularValues) {
  for (const auto& shape : {std::vector<std::int64_t>{24, 40}, {40, 24}, {16, 16}}) {
    const at::Tensor matrix = waves(shape, 0.3), nearly = orthogonalized(matrix.to(at::kFloat).unsqueeze(0))[0].to(at::kDouble);
    const auto [u, s, v] = at::linalg_svd(matrix, /*full_matrices=*/false);
    // In the matrix's own singular basis the result is diagonal, with values near 1.
    const at::Tensor inside = u.t().mm(nearly).mm(v.t());
    const at::Tensor values = inside.diagonal();
    EXPECT_LT((inside - at::diag(values)).abs().max().item<double>(), 1e-3);
    const at::Tensor large = values.masked_select(s > 0.02 * s.norm());
    EXPECT_GT(large.numel(), 4);
    EXPECT_GT(large.min().item<double>(), 0.6);
    EXPECT_LT(values.max().item<double>(), 1.3);
  }
}

TEST(Muon, TheUpdateFollowsItsFormula) {
  const at::Tensor start = waves({6, 10}, 1), first = waves({6, 10}, 2), second = waves({6, 10}, 3);
  // Beside another matrix, which must not matter.
  const at::Tensor weight = start.to(at::kFloat), moment = at::zeros({6, 10});
  const at::Tensor other = waves({6, 10}, 4).to(at::kFloat), other_moment = at::zeros({6, 10});
  for (const at::Tensor& g : {first, second}) {
    muon_update({{other, other_moment, start.to(at::kFloat)}, {weight, moment, g.to(at::kFloat) * 4}}, a_step(4));
  }
  at::Tensor expected = start, m = at::zeros_like(start);
  for (const at::Tensor& g : {first, second}) {
    m = 0.9 * m + g;
    const at::Tensor u = orthogonalized((g + 0.9 * m).unsqueeze(0))[0];
    expected = expected - 0.1 * (0.25 * expected + 0.2 * std::sqrt(10.0) * u);
  }
  EXPECT_LT((weight - expected).abs().max().item<double>(), 1e-4);
  EXPECT_LT((moment - m).abs().max().item<double>(), 1e-5);
  EXPECT_GT((other_moment - m).abs().max().item<double>(), 0.1);
}

TEST(Muon, ABrokenStepChangesNothing) {
  const at::Tensor weight = waves({6, 10}, 1).to(at::kFloat), moment = waves({6, 10}, 2).to(at::kFloat);
  const at::Tensor weight_before = weight.clone(), moment_before = moment.clone();
  muon_update({{weight, moment, at::full({6, 10}, std::nan(""))}}, a_step(1, 1));
  EXPECT_TRUE(at::equal(weight, weight_before));
  EXPECT_TRUE(at::equal(moment, moment_before));
}

class MuonRun : public test::RunFolder {};

TEST_F(MuonRun, LearnsSavesNoSecondMomentOfItsMatricesAndContinues) {
  LoopConfig config = test::short_loop();
  config.optimizer.type = "muon";
  config.steps = 48;
  test::TinyRun straight(folder / "straight", config);
  const LoopResult result = straight.train();
  EXPECT_LT(result.loss, 2.5);  // log(32) = 3.5 at the start
  std::set<std::string> names;
  const SafetensorsFile state = SafetensorsFile::open(result.checkpoint / "optimizer.safetensors");
  for (const TensorInfo& info : state.tensors()) names.insert(info.name);
  std::set<std::string> with_two;  // parameters of AdamW
  for (const std::string& name : names) {
    if (name.ends_with(".moment2")) with_two.insert(name.substr(0, name.size() - 8));
  }
  EXPECT_TRUE(names.contains("layers.0.mlp.down.weight.moment1"));
  for (const Parameter& parameter : straight.model->parameters()) {
    const bool projection =
        parameter.name.starts_with("layers.") && parameter.name.ends_with(".weight") && parameter.value.dim() == 2;
    EXPECT_EQ(with_two.contains(parameter.name), !projection) << parameter.name;
  }
  {
    test::TinyRun begun(folder / "stopped", config);
    int batches = 0;
    begun.source.before_next = [&] {
      if (++batches == 37) fail("stop");  // in step 19, saved at 15
    };
    EXPECT_EQ(error_of([&] { begun.train(); }), "stop");
  }
  test::TinyRun resumed(folder / "stopped", config);
  EXPECT_EQ(resumed.train().loss, result.loss);
  EXPECT_EQ(test::timeless_metrics(folder / "stopped"), test::timeless_metrics(folder / "straight"));
}

}  // namespace molt
