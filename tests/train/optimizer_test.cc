#include "train/optimizer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "train/support.h"

namespace molt {

namespace optimizer_test {

// A few named leaves in flat buffers, as a model's are.
struct Leaves {
  std::vector<std::pair<std::string, at::Tensor>> tensors;

  explicit Leaves(at::ScalarType dtype) {
    const auto ramp = [&](std::vector<std::int64_t> shape, double phase) {
      std::int64_t count = 1;
      for (const std::int64_t size : shape) count *= size;
      return at::arange(count, at::kDouble).mul(0.37).add(phase).sin().view(shape).to(dtype);
    };
    tensors = {{"layers.0.norm", ramp({7}, 0)},
               {"layers.0.qkv.weight", ramp({5, 3}, 1)},
               {"layers.0.o.weight", ramp({3, 5}, 2)},
               {"layers.0.mixers.mamba.A_log", ramp({4, 2}, 3).to(dtype == at::kBFloat16 ? at::kFloat : dtype)}};
  }

  std::vector<FlatBuffer> flatten() {
    return flatten_trainable(
        [&](const ParameterVisitor& visitor) {
          for (auto& [name, value] : tensors) visitor(name, value);
        },
        [](const std::string&) { return true; });
  }
};

// The same gradients for any optimizer: of step `step`, for the leaf of this name.
at::Tensor gradient(const at::Tensor& value, const std::string& name, int step) {
  const double phase = static_cast<double>(name.size()) + 0.8 * step;
  return at::arange(value.numel(), at::kDouble).mul(1.3).add(phase).cos().view(value.sizes());
}

void set_gradients(Optimizer& optimizer, int step, double factor = 1.0) {
  optimizer.zero_gradients();
  for (FlatBuffer& buffer : optimizer.buffers()) {
    for (FlatBuffer::Piece& piece : buffer.pieces) {
      piece.value.mutable_grad().copy_(gradient(piece.value, piece.name, step) * factor);
    }
  }
}

// Algorithm 2 of arXiv 1711.05101 in double precision.
struct Reference {
  at::Tensor value, m, v;
  void step(const at::Tensor& g, const OptimizerConfig& config, double rate, double decay, int t) {
    m = config.beta1 * m + (1 - config.beta1) * g;
    v = config.beta2 * v + (1 - config.beta2) * g * g;
    const at::Tensor m_hat = m / (1 - std::pow(config.beta1, t)), v_hat = v / (1 - std::pow(config.beta2, t));
    value = value * (1 - rate * decay) - rate * m_hat / (v_hat.sqrt() + config.epsilon);
  }
};

}  // namespace optimizer_test

using namespace optimizer_test;

TEST(Optimizer, FollowsTheFormulaWithClippingAndDecayOfMatricesAlone) {
  OptimizerConfig config;
  config.clip_norm = 1.5;
  Leaves leaves(at::kFloat);
  std::vector<Reference> references;
  for (const auto& [name, value] : leaves.tensors) {
    references.push_back({value.to(at::kDouble), at::zeros_like(value, at::kDouble), at::zeros_like(value, at::kDouble)});
  }
  Optimizer optimizer(config, leaves.flatten());
  const double divisor = 3.0;
  for (int step = 0; step < 6; ++step) {
    const double factor = step < 3 ? 0.4 : 4.0;  // below and above the clipping norm
    double squares = 0;
    std::vector<at::Tensor> gradients;
    for (const auto& [name, value] : leaves.tensors) {
      gradients.push_back(gradient(value, name, step) * (factor / divisor));
      squares += gradients.back().square().sum().item<double>();
    }
    const double norm = std::sqrt(squares);
    ASSERT_EQ(norm > config.clip_norm, step >= 3);
    const double clip = std::min(1.0, config.clip_norm / norm), rate = 0.01 * (step + 1);
    set_gradients(optimizer, step, factor);
    EXPECT_NEAR(optimizer.step(rate, divisor).item<double>(), norm, 1e-5);
    for (std::size_t i = 0; i < references.size(); ++i) {
      const std::string& name = leaves.tensors[i].first;
      references[i].step(gradients[i] * clip, config, rate, name.ends_with(".weight") ? config.weight_decay : 0.0, step + 1);
      EXPECT_LT((leaves.tensors[i].second - references[i].value).abs().max().item<double>(), 3e-6) << name << " step " << step;
    }
  }
}

TEST(Optimizer, TheNormOfALongBufferKeepsItsPrecision) {
  at::Tensor leaf = at::full({3, 1000003}, 0.5f);
  Optimizer optimizer(OptimizerConfig(), flatten_trainable([&](const ParameterVisitor& visitor) { visitor("w", leaf); },
                                                           [](const std::string&) { return true; }));
  optimizer.zero_gradients();
  leaf.mutable_grad().fill_(0.1);
  EXPECT_NEAR(optimizer.step(0, 1).item<double>(), 0.1 * std::sqrt(3000009.0), 2e-4);
}

TEST(Optimizer, MastersCarryWhatBfloat16CannotHold) {
  OptimizerConfig config;
  Leaves narrow(at::kBFloat16), wide(at::kFloat);
  for (std::size_t i = 0; i < wide.tensors.size(); ++i) wide.tensors[i].second = narrow.tensors[i].second.to(at::kFloat);
  Optimizer with_masters(config, narrow.flatten()), plain(config, wide.flatten());
  ASSERT_EQ(with_masters.buffers().size(), 2u);  // A_log stays fp32
  for (int step = 0; step < 20; ++step) {
    set_gradients(with_masters, 0);
    set_gradients(plain, 0);
    with_masters.step(1e-5, 1);  // each step is below half a unit of bfloat16
    plain.step(1e-5, 1);
  }
  int moved = 0;
  for (std::size_t i = 0; i < wide.tensors.size(); ++i) {
    const at::Tensor& got = narrow.tensors[i].second;
    EXPECT_TRUE(at::equal(got, wide.tensors[i].second.to(got.scalar_type()))) << wide.tensors[i].first;
  }
  for (const Parameter& parameter : with_masters.state()) {
    if (parameter.name != "layers.0.qkv.weight.master") continue;
    EXPECT_TRUE(at::allclose(parameter.value, wide.tensors[1].second.detach(), 0, 1e-6));
    moved += !at::equal(parameter.value, parameter.value.to(at::kBFloat16).to(at::kFloat));
  }
  EXPECT_EQ(moved, 1);
}

TEST(Optimizer, NothingMovesWhenTheNormIsNotFinite) {
  Leaves leaves(at::kFloat);
  Optimizer optimizer(OptimizerConfig(), leaves.flatten());
  set_gradients(optimizer, 0);
  optimizer.step(0.1, 1);
  std::vector<at::Tensor> before;
  for (const Parameter& parameter : optimizer.state()) before.push_back(parameter.value.clone());
  set_gradients(optimizer, 1);
  leaves.tensors[2].second.mutable_grad()[0][0] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(std::isnan(optimizer.step(0.1, 1).item<float>()));
  const std::vector<Parameter> after = optimizer.state();
  for (std::size_t i = 0; i < after.size(); ++i) EXPECT_TRUE(at::equal(after[i].value, before[i])) << after[i].name;
}

TEST(Optimizer, AStepAboveTheLimitChangesNothing) {
  Leaves leaves(at::kFloat);
  Optimizer optimizer(OptimizerConfig(), leaves.flatten());
  set_gradients(optimizer, 0);
  const at::Tensor before = leaves.tensors[1].second.detach().clone();
  const double norm = optimizer.step(0.1, 1, at::full({}, 0.5)).item<double>();
  EXPECT_GT(norm, 0.5);
  EXPECT_TRUE(at::equal(leaves.tensors[1].second, before));
  optimizer.step(0.1, 1, at::full({}, norm * 1.01));
  EXPECT_FALSE(at::equal(leaves.tensors[1].second, before));
}

TEST(Optimizer, GroupsHaveRatesAndDecaysOfTheirOwn) {
  OptimizerConfig config, none;
  config.clip_norm = none.clip_norm = 0;
  config.groups = {{{"layers.0.*"}, 0.5, std::nullopt}, {{"*norm", "*o.weight"}, 0.0, 0.3}, {{"*o.weight"}, 2.0, 0.0}};
  Leaves grouped(at::kFloat), start(at::kFloat);
  Optimizer optimizer(config, grouped.flatten());
  set_gradients(optimizer, 0);
  optimizer.step(0.01, 1);
  const auto moved = [&](std::size_t leaf, double rate, double decay) {
    const auto& [name, value] = start.tensors[leaf];
    Reference reference{value.to(at::kDouble), at::zeros_like(value, at::kDouble), at::zeros_like(value, at::kDouble)};
    reference.step(gradient(value, name, 0), config, rate, decay, 1);
    return (grouped.tensors[leaf].second - reference.value).abs().max().item<double>();
  };
  EXPECT_TRUE(at::equal(grouped.tensors[0].second, start.tensors[0].second));  // the norm: factor 0
  EXPECT_LT(moved(1, 0.005, config.weight_decay), 1e-6);
  EXPECT_LT(moved(2, 0.02, 0), 1e-6);
  EXPECT_LT(moved(3, 0.005, 0), 1e-6);

  none.groups = {{{"layers.7.*"}, 1.0, std::nullopt}};
  const std::string error = error_of([&] { Optimizer(none, Leaves(at::kFloat).flatten()); });
  EXPECT_TRUE(error.starts_with("optimizer.groups[0].parameters: found \"layers.7.*\"")) << error;
}

TEST(Optimizer, AStateThatIsRestoredContinuesExactly) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    Leaves first(dtype), second(dtype);
    Optimizer straight(OptimizerConfig(), first.flatten()), resumed(OptimizerConfig(), second.flatten());
    std::vector<Parameter> state;
    for (int step = 0; step < 4; ++step) {
      set_gradients(straight, step);
      straight.step(0.01, 1);
      if (step != 1) continue;
      for (const Parameter& parameter : straight.state()) state.push_back({parameter.name, parameter.value.clone()});
    }
    resumed.restore(state, 2, "state");
    EXPECT_EQ(resumed.steps_done(), 2);
    for (int step = 2; step < 4; ++step) {
      set_gradients(resumed, step);
      resumed.step(0.01, 1);
    }
    for (std::size_t i = 0; i < first.tensors.size(); ++i) {
      EXPECT_TRUE(at::equal(first.tensors[i].second, second.tensors[i].second)) << first.tensors[i].first;
    }
  }
}

TEST(Optimizer, AStateThatDoesNotFitIsRefusedWhole) {
  Leaves leaves(at::kFloat);
  Optimizer optimizer(OptimizerConfig(), leaves.flatten());
  std::vector<Parameter> state;
  for (const Parameter& parameter : optimizer.state()) state.push_back({parameter.name, at::ones_like(parameter.value)});
  std::vector<Parameter> missing(state.begin(), state.end() - 1), extra = state, shape = state;
  extra.push_back({"layers.9.master", at::ones({1})});
  shape.back().value = at::ones({2, 4});
  EXPECT_EQ(error_of([&] { optimizer.restore(missing, 1, "f"); }),
            "f: layers.0.mixers.mamba.A_log.master: found no such tensor, expected the state of a trained parameter");
  EXPECT_EQ(error_of([&] { optimizer.restore(extra, 1, "f"); }),
            "f: layers.9.master: found the state of a parameter that is not trained here");
  EXPECT_EQ(error_of([&] { optimizer.restore(shape, 1, "f"); }),
            "f: layers.0.mixers.mamba.A_log.master: found Float [2, 4], expected Float [4, 2]");
  EXPECT_FALSE(at::equal(leaves.tensors[0].second, at::ones({7})));
}

}  // namespace molt
