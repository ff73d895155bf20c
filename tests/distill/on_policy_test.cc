// The student's own texts as batches: what is in them, that they repeat, and that distilling on them brings student and teacher
// closer there.
#include "distill/on_policy.h"

#include <ATen/Functions.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "distill/support.h"
#include "formats/hugging_face.h"
#include "infer/engine.h"

namespace molt::on_policy_test {

using namespace distill_test;

PackedBatch dataset_batch(std::int64_t tokens = 300) {
  DataConfig data;
  data.synthetic.emplace();
  return open_source(data, tokenizer(), tokenizer()->vocabulary(), 3, "data")->next(tokens);
}

OnPolicyOptions options(double temperature, std::int64_t max_tokens = 20) {
  return {{.max_tokens = max_tokens, .temperature = temperature}, tokenizer()->stop_tokens(), 11};
}

std::vector<std::int32_t> sequence(const PackedBatch& batch, std::int64_t i) {
  const auto* tokens = batch.tokens.const_data_ptr<std::int64_t>();
  return {tokens + batch.sequences.offsets[i], tokens + batch.sequences.offsets[i + 1]};
}

// Where the first token is learned that counts from the sequence's beginning.
std::int64_t prompt_length(const PackedBatch& batch, std::int64_t i) {
  std::int64_t at = batch.sequences.offsets[i];
  while (batch.loss_weights[at].item<float>() == 0) ++at;
  return at + 1 - batch.sequences.offsets[i];
}

TEST(OnPolicy, PromptsAreContinuedAsTheEngineContinuesThem) {
  const auto model = new_teacher();
  TextSampler sampler(*model);
  const PackedBatch given = dataset_batch(), own = continued_by(sampler, given, options(0), 0, 10000);
  ASSERT_GE(given.sequences.count(), 2);
  ASSERT_EQ(own.sequences.count(), given.sequences.count());
  for (std::int64_t i = 0; i < own.sequences.count(); ++i) {
    std::vector<std::int32_t> expected = sequence(given, i);
    expected.resize(static_cast<std::size_t>(prompt_length(given, i)));
    EXPECT_EQ(prompt_length(own, i), std::ssize(expected));
    Engine engine(*model, {.max_sequences = 1, .max_tokens = 400});
    engine.submit({.prompt = expected, .max_tokens = 20, .stop_tokens = tokenizer()->stop_tokens()});
    while (!engine.idle())
      for (const Event& event : engine.step())
        if (event.kind == Event::Kind::token) expected.push_back(event.token);
    EXPECT_EQ(sequence(own, i), expected);
    const at::Tensor weights = own.loss_weights.slice(0, own.sequences.offsets[i], own.sequences.offsets[i + 1]);
    EXPECT_EQ(weights.sum().item<double>(), static_cast<double>(std::ssize(expected) - prompt_length(own, i)));
  }
}

TEST(OnPolicy, ATextIsAFunctionOfSeedAndNumber) {
  const auto model = new_teacher();
  const PackedBatch given = dataset_batch();
  TextSampler sampler(*model);
  const auto draw = [&](std::int64_t first) { return continued_by(sampler, given, options(1), first, 10000); };
  EXPECT_TRUE(at::equal(draw(5).tokens, draw(5).tokens));
  const PackedBatch one = draw(5), other = draw(6);
  EXPECT_NE(sequence(one, 0), sequence(other, 0));
}

TEST(OnPolicy, ABatchHoldsNoMoreThanItsTokens) {
  const auto model = new_teacher();
  TextSampler sampler(*model);
  const PackedBatch given = dataset_batch();
  const std::int64_t first_prompt = prompt_length(given, 0);
  for (const std::int64_t most : {first_prompt + 1, first_prompt + 5, std::int64_t{100}, std::int64_t{150}}) {
    const PackedBatch own = continued_by(sampler, given, options(1), 0, most);
    EXPECT_LE(own.size(), most);
    EXPECT_GT(own.loss_weight, 0) << most;
    for (std::int64_t i = 0; i < own.sequences.count(); ++i) EXPECT_GT(own.sequences.length(i), prompt_length(given, i));
  }
}

TEST(OnPolicy, TheShareOfBatchesIsEvenlySpreadAndContinuesFromAPosition) {
  const auto model = new_teacher();
  DataConfig data;
  data.synthetic.emplace();
  const auto plain = [&] { return open_source(data, tokenizer(), tokenizer()->vocabulary(), 3, "data"); };
  const auto mixed = [&] {
    OnPolicyOptions half = options(1);
    half.config.fraction = 0.5;
    return on_policy_source(plain(), std::make_shared<TextSampler>(*model), half);
  };
  const auto reference = plain(), source = mixed();
  std::vector<PackedBatch> batches;
  Json middle;
  for (int i = 0; i < 6; ++i) {
    if (i == 3) middle = source->position();
    batches.push_back(source->next(300));
    EXPECT_EQ(at::equal(batches.back().tokens, reference->next(300).tokens), i % 2 == 0) << i;
  }
  const auto again = mixed();
  again->restore(middle);
  for (int i = 3; i < 6; ++i) EXPECT_TRUE(at::equal(again->next(300).tokens, batches[static_cast<std::size_t>(i)].tokens)) << i;
  EXPECT_EQ(again->position(), source->position());
  // A stage that reads the data itself goes on where this one stopped, and the other way round.
  const auto other = plain();
  other->restore(middle);
  EXPECT_EQ(other->position().at("sample"), middle.at("sample"));
  EXPECT_NO_THROW(again->restore(reference->position()));
}

// As a new engine writes them, for the weights of the moment.
TEST(OnPolicy, OneEngineWritesWhatANewOneWouldWrite) {
  const auto student = new_teacher(4, 9);
  auto buffers = flatten_trainable([&](const ParameterVisitor& visitor) { student->visit(visitor); },
                                   [](const std::string& name) { return name.starts_with("layers.1."); });
  DataConfig data;
  data.synthetic.emplace();
  const auto source = open_source(data, tokenizer(), tokenizer()->vocabulary(), 3, "data");
  const c10::NoGradGuard no_grad;
  TextSampler kept(*student);
  for (std::int64_t i = 0; i < 5; ++i) {
    const PackedBatch given = source->next(i == 0 ? 700 : 300);  // the largest first
    TextSampler fresh(*student);
    const PackedBatch own = continued_by(kept, given, options(1), 10 * i, 10000);
    EXPECT_TRUE(at::equal(own.tokens, continued_by(fresh, given, options(1), 10 * i, 10000).tokens)) << i;
    EXPECT_EQ(kept.engines_made(), 1);
    // The same prompts again, once the weights have changed where they lie.
    for (FlatBuffer& buffer : buffers) buffer.values.neg_();
    EXPECT_FALSE(at::equal(own.tokens, continued_by(kept, given, options(1), 10 * i, 10000).tokens)) << i;
  }
}

TEST(OnPolicy, AnotherEngineIsMadeForMoreRoomAndForWeightsElsewhere) {
  const auto student = new_teacher();
  TextSampler sampler(*student);
  const auto write = [&](std::int64_t prompt, std::int64_t fresh) {
    Request request{.prompt = std::vector<std::int32_t>(static_cast<std::size_t>(prompt), 3), .max_tokens = fresh};
    EXPECT_EQ(std::ssize(sampler.texts({request}, 8)[0]), prompt + fresh);
    return sampler.engines_made();
  };
  EXPECT_EQ(write(30, 4), 1);
  EXPECT_EQ(write(50, 14), 1);
  EXPECT_EQ(write(50, 15), 2);
  EXPECT_EQ(write(5, 15), 2);
  student->blocks[1].down.weight = student->blocks[1].down.weight.clone();
  EXPECT_EQ(write(5, 15), 3);
}

class OnPolicyTraining : public Folder {
 protected:
  OnPolicyTraining() {
    const auto teacher = new_teacher();
    write_folder(*teacher, folder / "teacher");
    const auto student = teacher->share();
    convert_layers(*student, *teacher, {1}, mamba(), 1, "layers");
    export_model(*student, folder / "student", {.like = folder / "teacher"});
  }

  TrainConfig config(const std::string& output, const std::string& head, const std::string& training) const {
    return parse<TrainConfig>(
        concat("model:\n  pretrained: {path: ", (folder / "student").string(), "}\n  base_model: {head: {", head,
               "}}\nreference_models: {teacher: {pretrained: {path: ", (folder / "teacher").string(),
               "}}}\ndata: {synthetic: {seed: 1}, on_policy: {fraction: 0.75, max_tokens: 24}}\n",
               "held_out: {own: {data: {synthetic: {split: test}, on_policy: {max_tokens: 24}}, tokens: ",
               "600}}\ndevice: cpu\noutput: ", (folder / output).string(), "\ntraining: {", training, "}\n"),
        "train.yaml");
  }

  LoopResult run(const TrainConfig& config) {
    RunModels models = open_models(config, "train.yaml");
    const LoopResult result = run_training(config, models, {.place = "train.yaml", .versions = {}});
    trained = std::move(models.student);
    return result;
  }

  std::unique_ptr<Model> trained;
};

TEST_F(OnPolicyTraining, AContinuedRunRepeatsTheUninterruptedOne) {
  const char* head = "distillation_model: teacher, distillation_loss_implementation: jsd";
  const char* training = "steps: 4, micro_batch_tokens: 200, micro_batches: 2, checkpoint_every: 2, keep_checkpoints: 4";
  const TrainConfig distillation = config("run", head, training);
  const LoopResult whole = run(distillation);
  const std::unique_ptr<Model> uninterrupted = std::move(trained);
  fs::remove_all(whole.checkpoint);
  const LoopResult continued = run(distillation);
  EXPECT_EQ(continued.step, 4);
  EXPECT_EQ(continued.evaluation, whole.evaluation);
  EXPECT_TRUE(same_weights(*trained, *uninterrupted));
}

TEST_F(OnPolicyTraining, BringsTheStudentCloserToTheTeacherOnItsOwnTexts) {
  const auto distance = [&](int steps) {
    return run(config(concat("run-", steps), "distillation_model: teacher, distillation_loss_implementation: reverse_kl",
                      concat("steps: ", steps, ", micro_batch_tokens: 400, trainable: [layers.1.*], schedule: {warmup: 0}, ",
                             "optimizer: {learning_rate: ", steps > 1 ? "1.0e-2" : "1.0e-12", ", weight_decay: 0.0}")))
        .evaluation.at("own.reverse_kl");
  };
  const double before = distance(1), after = distance(40);
  EXPECT_GT(before, 0);
  EXPECT_LT(after, 0.7 * before);
}

TEST_F(OnPolicyTraining, NeedsATeacherAndNoCrossEntropy) {
  const auto error = [&](const char* head) { return error_of([&] { run(config("run", head, "steps: 1")); }); };
  EXPECT_NE(error("language_model_loss_factor: 1").find("data.on_policy: found no head.distillation_model"), std::string::npos);
  EXPECT_NE(error("distillation_model: teacher, language_model_loss_factor: 0.5")
                .find("data.on_policy: found a language_model_loss_factor of 0.5, expected 0"),
            std::string::npos);
}

}  // namespace molt::on_policy_test
