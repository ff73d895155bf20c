// Which tokens temperature, top_k and top_p leave and how often they come; both implementations agree.
#include "infer/sampling.h"

#include <ATen/Context.h>
#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "ops/devices.h"

namespace molt {
namespace sampling_test {

at::Tensor logits_of(const std::vector<double>& probabilities) {
  return at::log(at::tensor(probabilities, at::kDouble)).to(at::kFloat).unsqueeze(0);
}

std::int32_t draw_one(const at::Tensor& logits, const SamplingOptions& options, std::int64_t draw) {
  std::vector<float> log_probabilities;
  return sample(logits, {options}, {draw}, log_probabilities).at(0);
}

// How often each token comes in `draws` draws, all of one batch.
std::vector<double> shares(const at::Tensor& logits, const SamplingOptions& options, std::int64_t draws) {
  std::vector<std::int64_t> numbers(static_cast<std::size_t>(draws));
  for (std::int64_t i = 0; i < draws; ++i) numbers[i] = i;
  std::vector<float> log_probabilities;
  std::vector<double> shares(static_cast<std::size_t>(logits.size(1)));
  for (const std::int32_t token : sample(logits.expand({draws, logits.size(1)}),
                                         std::vector<SamplingOptions>(numbers.size(), options), numbers, log_probabilities)) {
    shares.at(static_cast<std::size_t>(token)) += 1.0 / static_cast<double>(draws);
  }
  return shares;
}

// Pearson's statistic stays within three standard deviations of its mean, which is the number of free cells. Seeds are fixed.
void expect_shares(const std::vector<double>& found, const std::vector<double>& expected, std::int64_t draws) {
  ASSERT_EQ(found.size(), expected.size());
  double statistic = 0, cells = -1;  // free ones: the shares sum to 1
  for (std::size_t i = 0; i < expected.size(); ++i) {
    if (expected[i] == 0) {
      EXPECT_EQ(found[i], 0) << "token " << i;
      continue;
    }
    statistic += static_cast<double>(draws) * (found[i] - expected[i]) * (found[i] - expected[i]) / expected[i];
    ++cells;
  }
  EXPECT_LE(statistic, cells + 3 * std::sqrt(2 * cells) + 1e-9);
}

const std::vector<double> kProbabilities = {0.05, 0.4, 0.1, 0.25, 0.15, 0.05};

TEST(Sampling, GreedyTakesTheFirstOfTheLargestAndReportsItsLogProbability) {
  for (const at::Device device : test_devices()) {
    SCOPED_TRACE(device.str());
    std::vector<float> log_probabilities;
    const at::Tensor logits = at::tensor({0.0f, 3.0f, 1.0f, 3.0f, -INFINITY, 2.0f}).unsqueeze(0).to(device);
    EXPECT_EQ(sample(logits, {{}}, {0}, log_probabilities), std::vector<std::int32_t>{1});
    EXPECT_NEAR(log_probabilities.at(0), at::log_softmax(logits, 1)[0][1].item<double>(), 1e-6);
  }
}

TEST(Sampling, FollowsTheDistributionAtATemperature) {
  for (const at::Device device : test_devices()) {
    SCOPED_TRACE(device.str());
    constexpr std::int64_t draws = 20000;
    expect_shares(shares(logits_of(kProbabilities).to(device), {.temperature = 1, .seed = 1}, draws), kProbabilities, draws);

    std::vector<double> sharper = kProbabilities;
    double total = 0;
    for (double& p : sharper) total += p = std::pow(p, 1 / 0.5);
    for (double& p : sharper) p /= total;
    expect_shares(shares(logits_of(kProbabilities).to(device), {.temperature = 0.5, .seed = 2}, draws), sharper, draws);
  }
}

TEST(Sampling, KeepsTheKMostProbableTheLowerIndexFirst) {
  for (const at::Device device : test_devices()) {
    SCOPED_TRACE(device.str());
    constexpr std::int64_t draws = 20000;
    const at::Tensor logits = logits_of(kProbabilities).to(device);
    expect_shares(shares(logits, {.temperature = 1, .top_k = 2, .seed = 3}, draws), {0, 0.4 / 0.65, 0, 0.25 / 0.65, 0, 0}, draws);
    // Tokens 0 and 5 are equal: of them the first stays.
    expect_shares(shares(logits, {.temperature = 1, .top_k = 5, .seed = 4}, draws),
                  {0.05 / 0.95, 0.4 / 0.95, 0.1 / 0.95, 0.25 / 0.95, 0.15 / 0.95, 0}, draws);
    expect_shares(shares(logits, {.temperature = 1, .top_k = 100, .seed = 5}, draws), kProbabilities, draws);
  }
}

TEST(Sampling, KeepsTheFewestThatReachTopP) {
  for (const at::Device device : test_devices()) {
    SCOPED_TRACE(device.str());
    constexpr std::int64_t draws = 20000;
    const at::Tensor logits = logits_of(kProbabilities).to(device);
    expect_shares(shares(logits, {.temperature = 1, .top_p = 0.66, .seed = 6}, draws), {0, 0.5, 0, 0.3125, 0.1875, 0}, draws);
    expect_shares(shares(logits, {.temperature = 1, .top_p = 0.3, .seed = 7}, draws), {0, 1, 0, 0, 0, 0}, draws);
    // Of what top_k left: 0.4 and 0.25 of 0.8.
    expect_shares(shares(logits, {.temperature = 1, .top_k = 3, .top_p = 0.8, .seed = 8}, draws),
                  {0, 0.4 / 0.65, 0, 0.25 / 0.65, 0, 0}, draws);
  }
}

TEST(Sampling, DependsOnSeedAndDrawAlone) {
  for (const at::Device device : test_devices()) {
    SCOPED_TRACE(device.str());
    at::manual_seed(1);
    const at::Tensor logits = at::randn({4, 300}, at::TensorOptions(at::kFloat)).to(device);
    const SamplingOptions options{.temperature = 1.3, .top_k = 40, .top_p = 0.9, .seed = 11};
    std::vector<float> log_probabilities;
    const auto together =
        sample(logits, {options, options, {.temperature = 2, .seed = 5}, options}, {0, 1, 2, 3}, log_probabilities);
    EXPECT_EQ(together[1], draw_one(logits.narrow(0, 1, 1), options, 1));
    EXPECT_EQ(together[3], draw_one(logits.narrow(0, 3, 1), options, 3));
    SamplingOptions other = options;
    other.seed = 12;
    int different = 0;
    for (std::int64_t draw = 0; draw < 50; ++draw) {
      different += draw_one(logits.narrow(0, 0, 1), options, draw) != draw_one(logits.narrow(0, 0, 1), other, draw);
    }
    EXPECT_GT(different, 25);
  }
}

void expect_composite(const at::TensorOptions& place) {
  at::manual_seed(2);
  for (const std::int64_t vocabulary : {1, 7, 8, 513, 5000}) {
    const at::Tensor logits = (at::randn({24, vocabulary}, at::TensorOptions(at::kFloat)) * 3).to(place);
    std::vector<SamplingOptions> options;
    std::vector<std::int64_t> draws;
    for (std::int64_t i = 0; i < 24; ++i) {
      options.push_back({.temperature = 0.3 * static_cast<double>(i % 5),
                         .top_k = i % 3 * 7,
                         .top_p = i % 2 ? 1.0 : 0.3 + 0.02 * static_cast<double>(i),
                         .seed = static_cast<std::uint64_t>(i)});
      draws.push_back(i * i);
    }
    std::vector<float> log_probabilities, composite;
    EXPECT_EQ(sample(logits, options, draws, log_probabilities),
              sample_composite(logits.to(at::kFloat), options, draws, composite))
        << vocabulary;
    for (std::size_t i = 0; i < composite.size(); ++i) EXPECT_NEAR(log_probabilities[i], composite[i], 1e-5);
  }
}

TEST(Sampling, AgreesWithTheCompositeForm) {
  for (const at::Device device : test_devices()) {
    SCOPED_TRACE(device.str());
    expect_composite(at::TensorOptions(device).dtype(at::kFloat));
    expect_composite(at::TensorOptions(device).dtype(at::kBFloat16));  // in which many tokens are equal
  }
}

TEST(Sampling, TinyTemperaturesAreGreedy) {
  for (const at::Device device : test_devices()) {
    SCOPED_TRACE(device.str());
    const at::Tensor logits = at::tensor({1.0f, 1.001f, -5.0f}).unsqueeze(0).to(device);
    for (const double temperature : {1e-6, 1e-30, 1e-310}) {
      EXPECT_EQ(draw_one(logits, {.temperature = temperature, .seed = 1}, 0), 1) << temperature;
    }
  }
}

TEST(Sampling, RefusesWhatIsNoDistribution) {
  std::vector<float> log_probabilities;
  const at::Tensor logits = at::tensor({0.0f, NAN, 1.0f}).unsqueeze(0);
  for (const at::Device device : test_devices())
    EXPECT_THROW(sample(logits.to(device), {{}}, {0}, log_probabilities), UserError) << device;
  EXPECT_THROW(sample_composite(logits, {{}}, {0}, log_probabilities), UserError);
  EXPECT_THROW(check_sampling({.temperature = -1}, ""), UserError);
  EXPECT_THROW(check_sampling({.temperature = NAN}, ""), UserError);
  EXPECT_THROW(check_sampling({.top_k = -1}, ""), UserError);
  EXPECT_THROW(check_sampling({.top_p = 0}, ""), UserError);
  EXPECT_THROW(check_sampling({.top_p = 1.1}, ""), UserError);
}

}  // namespace sampling_test
}  // namespace molt
