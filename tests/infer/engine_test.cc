// The engine against the model's forward pass, and requests beside one another against each alone.
#include "infer/engine.h"

#include <ATen/Functions.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <map>

#include "base/error.h"
#include "ops/devices.h"
#include "tiny_models.h"

namespace molt {
namespace engine_test {

using testing_infer::tiny_hybrid;
using testing_infer::tiny_model;
using testing_infer::tiny_prompt;

struct Generated {
  std::vector<std::int32_t> tokens;
  std::vector<float> log_probabilities;
  Event::Reason reason = Event::Reason::none;
};

void collect(const std::vector<Event>& events, std::map<std::int64_t, Generated>& results) {
  std::int64_t last = -1;
  for (const Event& event : events) {
    EXPECT_GE(event.request, last) << "events are not in order of request";
    last = event.request;
    Generated& result = results[event.request];
    EXPECT_EQ(result.reason, Event::Reason::none) << "an event after the end of request " << event.request;
    if (event.kind == Event::Kind::finished) {
      result.reason = event.reason;
    } else {
      result.tokens.push_back(event.token);
      result.log_probabilities.push_back(event.log_probability);
    }
  }
}

std::map<std::int64_t, Generated> run(Engine& engine) {
  std::map<std::int64_t, Generated> results;
  while (!engine.idle()) collect(engine.step(), results);
  return results;
}

std::map<std::int64_t, Generated> run(const Model& model, const std::vector<Request>& requests, const EngineOptions& options) {
  Engine engine(model, options);
  for (const Request& request : requests) engine.submit(request);
  return run(engine);
}

// The whole sequence through the whole model for every token.
Generated naive_greedy(const Model& model, std::vector<std::int32_t> tokens, std::int64_t count) {
  c10::NoGradGuard no_gradients;
  Generated result;
  for (std::int64_t i = 0; i < count; ++i) {
    const auto hidden = model.forward(PackedBatch::of({{tokens, {}}}).to(model.device()));
    const auto scores = at::log_softmax(model.logits(hidden.narrow(0, hidden.size(0) - 1, 1)), 1);
    tokens.push_back(static_cast<std::int32_t>(scores.argmax(1).item<std::int64_t>()));
    result.tokens.push_back(tokens.back());
    result.log_probabilities.push_back(scores[0][tokens.back()].item<float>());
  }
  return result;
}

void expect_same(const Generated& found, const Generated& expected) {
  EXPECT_EQ(found.tokens, expected.tokens);
  ASSERT_EQ(found.log_probabilities.size(), expected.log_probabilities.size());
  for (std::size_t i = 0; i < found.log_probabilities.size(); ++i) {
    EXPECT_NEAR(found.log_probabilities[i], expected.log_probabilities[i], 1e-4) << "token " << i;
  }
}

// Each token's log-probability is the forward pass's, and no other token is likelier by more than the tolerance.
void expect_follows(const Model& model, const Request& request, const Generated& result, double tolerance) {
  c10::NoGradGuard no_gradients;
  std::vector<std::int32_t> tokens = request.prompt;
  tokens.insert(tokens.end(), result.tokens.begin(), result.tokens.end());
  const auto count = static_cast<std::int64_t>(result.tokens.size());
  ASSERT_EQ(count, request.max_tokens);
  const auto hidden = model.forward(PackedBatch::of({{tokens, {}}}).to(model.device()));
  const auto before = hidden.narrow(0, static_cast<std::int64_t>(request.prompt.size()) - 1, count);
  const auto scores = at::log_softmax(model.logits(before).to(at::kFloat), 1).cpu();
  for (std::int64_t i = 0; i < count; ++i) {
    const auto at_place = static_cast<std::size_t>(i);
    EXPECT_NEAR(result.log_probabilities[at_place], scores[i][result.tokens[at_place]].item<float>(), tolerance);
    EXPECT_GE(result.log_probabilities[at_place], scores[i].max().item<float>() - tolerance);
  }
}

std::vector<Request> mixed_requests(double temperature = 0) {
  std::vector<Request> requests;
  for (std::int64_t i = 0; i < 7; ++i) {
    requests.push_back({.prompt = tiny_prompt(1 + i * i, i),
                        .max_tokens = 20 - 2 * i,
                        .sampling = {.temperature = temperature, .seed = static_cast<std::uint64_t>(100 + i)}});
  }
  return requests;
}

TEST(Engine, EqualsTheWholeForwardPassTokenByToken) {
  for (const at::Device device : test_devices()) {
    SCOPED_TRACE(device.str());
    for (const auto& model : {tiny_hybrid(device), tiny_model({"attention"}, 1, device), tiny_model({"mamba"}, 1, device),
                              tiny_model({"sliding_window"}, 1, device)}) {
      for (const std::int64_t length : {1, 3, 17}) {
        const auto prompt = tiny_prompt(length);
        const auto results = run(*model, {{.prompt = prompt, .max_tokens = 12}}, {});
        ASSERT_EQ(results.size(), 1u);
        expect_same(results.at(0), naive_greedy(*model, prompt, 12));
        EXPECT_EQ(results.at(0).reason, Event::Reason::length);
      }
    }
  }
}

TEST(Engine, SequencesOfMixedLengthsEqualEachAlone) {
  for (const at::Device device : test_devices()) {
    SCOPED_TRACE(device.str());
    const auto model = tiny_hybrid(device);
    const auto requests = mixed_requests();
    const auto together = run(*model, requests, {.max_sequences = 7, .max_tokens = 64, .prefill_tokens = 1000});
    for (std::size_t i = 0; i < requests.size(); ++i) {
      expect_same(together.at(static_cast<std::int64_t>(i)),
                  run(*model, {requests[i]}, {.max_sequences = 1, .max_tokens = 64}).at(0));
    }
  }
}

// More requests than places, so that steps mix prompts of any length with sequences that are further along; every token is held
// against the whole model's forward pass over what was generated.
TEST(Engine, AQueueOfPromptsFollowsTheForwardPassInEachType) {
  const std::vector<std::pair<at::Device, at::ScalarType>> places = [] {
    std::vector<std::pair<at::Device, at::ScalarType>> all;
    for (const at::Device device : test_devices()) all.emplace_back(device, at::kFloat);
    if (at::hasCUDA()) all.emplace_back(at::Device(at::kCUDA, 0), at::kBFloat16);
    return all;
  }();
  for (const auto& [device, dtype] : places) {
    SCOPED_TRACE(device.str() + " " + c10::toString(dtype));
    // A share, as a recipe evaluates: what its steps need besides the weights lies on the device, too.
    const auto model = tiny_hybrid(device, dtype)->share();
    std::vector<Request> requests;
    for (std::int64_t i = 0; i < 40; ++i)
      requests.push_back({.prompt = tiny_prompt(1 + i * 29 % 90, i), .max_tokens = 5 + i * 13 % 40});
    const auto results = run(*model, requests, {.max_sequences = 9, .max_tokens = 140, .prefill_tokens = 300});
    ASSERT_EQ(results.size(), requests.size());
    const double tolerance = dtype == at::kFloat ? 1e-4 : 0.4;
    for (const auto& [id, result] : results) expect_follows(*model, requests[static_cast<std::size_t>(id)], result, tolerance);
  }
}

TEST(Engine, ReusedPlacesForgetWhatWasThere) {
  for (const at::Device device : test_devices()) {
    SCOPED_TRACE(device.str());
    const auto model = tiny_hybrid(device);
    const auto requests = mixed_requests();
    const auto crowded = run(*model, requests, {.max_sequences = 2, .max_tokens = 64});
    for (std::size_t i = 0; i < requests.size(); ++i) {
      expect_same(crowded.at(static_cast<std::int64_t>(i)),
                  run(*model, {requests[i]}, {.max_sequences = 1, .max_tokens = 64}).at(0));
    }
  }
}

TEST(Engine, PromptsReadInChunksEqualWholeOnes) {
  for (const at::Device device : test_devices()) {
    SCOPED_TRACE(device.str());
    const auto model = tiny_hybrid(device);
    const auto requests = mixed_requests();
    const auto whole = run(*model, requests, {.max_sequences = 7, .max_tokens = 64, .prefill_tokens = 1000});
    for (const std::int64_t chunk : {1, 3, 10}) {
      const auto pieces = run(*model, requests, {.max_sequences = 3, .max_tokens = 64, .prefill_tokens = chunk});
      for (const auto& [id, result] : whole) expect_same(pieces.at(id), result);
    }
  }
}

TEST(Engine, SamplesDependOnTheirSeedNotOnTheirNeighbours) {
  for (const at::Device device : test_devices()) {
    SCOPED_TRACE(device.str());
    const auto model = tiny_hybrid(device);
    const auto requests = mixed_requests(1.0);
    const auto together = run(*model, requests, {.max_sequences = 4, .max_tokens = 64, .prefill_tokens = 5});
    for (std::size_t i = 0; i < requests.size(); ++i) {
      const auto alone = run(*model, {requests[i]}, {.max_sequences = 1, .max_tokens = 64});
      EXPECT_EQ(together.at(static_cast<std::int64_t>(i)).tokens, alone.at(0).tokens);
    }
    Request other = requests[0];
    other.sampling.seed = 999;
    EXPECT_NE(run(*model, {other}, {.max_tokens = 64}).at(0).tokens, together.at(0).tokens);
  }
}

TEST(Engine, EndsAfterAStopToken) {
  for (const at::Device device : test_devices()) {
    SCOPED_TRACE(device.str());
    const auto model = tiny_hybrid(device);
    const auto prompt = tiny_prompt(6);
    const auto free = naive_greedy(*model, prompt, 16);
    const std::int32_t stop = free.tokens.at(9);
    const auto first = std::find(free.tokens.begin(), free.tokens.end(), stop) - free.tokens.begin();
    const auto results = run(*model, {{.prompt = prompt, .max_tokens = 16, .stop_tokens = {66, stop}}}, {.max_tokens = 64});
    EXPECT_EQ(results.at(0).tokens, std::vector(free.tokens.begin(), free.tokens.begin() + first + 1));
    EXPECT_EQ(results.at(0).reason, Event::Reason::stop);
  }
}

TEST(Engine, CancelsWhatIsQueuedAndWhatRuns) {
  for (const at::Device device : test_devices()) {
    SCOPED_TRACE(device.str());
    const auto model = tiny_hybrid(device);
    const auto requests = mixed_requests();
    Engine engine(*model, {.max_sequences = 2, .max_tokens = 64});
    for (const Request& request : requests) engine.submit(request);
    std::map<std::int64_t, Generated> results;
    for (int i = 0; i < 3; ++i) collect(engine.step(), results);
    engine.cancel(0);
    engine.cancel(0);
    engine.cancel(5);
    engine.cancel(77);
    EXPECT_EQ(engine.pending(), 5);
    while (!engine.idle()) collect(engine.step(), results);
    ASSERT_EQ(results.size(), requests.size());
    EXPECT_EQ(results.at(0).reason, Event::Reason::cancelled);
    EXPECT_EQ(results.at(0).tokens.size(), 3u);
    EXPECT_EQ(results.at(5).reason, Event::Reason::cancelled);
    EXPECT_TRUE(results.at(5).tokens.empty());
    for (const std::int64_t id : {1, 2, 3, 4, 6}) {
      expect_same(results.at(id), run(*model, {requests[static_cast<std::size_t>(id)]}, {.max_tokens = 64}).at(0));
    }
    EXPECT_TRUE(engine.step().empty());
  }
}

TEST(Engine, ALongPromptHoldsUpNobody) {
  for (const at::Device device : test_devices()) {
    const auto model = tiny_hybrid(device);
    Engine engine(*model, {.max_sequences = 3, .max_tokens = 128, .prefill_tokens = 8});
    engine.submit({.prompt = tiny_prompt(2), .max_tokens = 30});
    engine.step();
    engine.submit({.prompt = tiny_prompt(80), .max_tokens = 5});
    engine.submit({.prompt = tiny_prompt(4), .max_tokens = 5});
    // 84 prompt tokens at 8 a step: the first request gets its token all the while, the others their first in order. A GPU has
    // begun a step before they came.
    const int last = device.is_cuda() ? 12 : 11;
    for (int step = 1; step <= last; ++step) {
      const auto events = engine.step();
      ASSERT_EQ(events.size(), step < last - 1 ? 1u : step == last - 1 ? 2u : 3u) << "step " << step << " on " << device;
      EXPECT_EQ(events[0].request, 0);
    }
  }
}

TEST(Engine, RefusesWhatCannotBe) {
  const auto model = tiny_model({"attention"});
  EXPECT_THROW(Engine(*model, {.max_sequences = 0}), UserError);
  EXPECT_THROW(Engine(*model, {.prefill_tokens = 0}), UserError);
  Engine engine(*model, {.max_sequences = 1, .max_tokens = 10});
  const auto submit = [&](std::vector<std::int32_t> prompt, std::int64_t max_tokens, SamplingOptions sampling = {}) {
    return engine.submit({.prompt = std::move(prompt), .max_tokens = max_tokens, .sampling = sampling});
  };
  EXPECT_THROW(submit({}, 5), UserError);
  EXPECT_THROW(submit({67}, 5), UserError);
  EXPECT_THROW(submit({-1}, 5), UserError);
  EXPECT_THROW(submit({1}, 0), UserError);
  EXPECT_THROW(submit({1}, 10), UserError);
  EXPECT_THROW(submit({1}, 5, {.temperature = -1}), UserError);
  EXPECT_TRUE(engine.idle());
  EXPECT_TRUE(engine.step().empty());
  EXPECT_EQ(submit({1}, 9), 0);
  EXPECT_EQ(run(engine).at(0).tokens.size(), 9u);
}

}  // namespace engine_test
}  // namespace molt
