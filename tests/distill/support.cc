#include "distill/support.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <stdlib.h>

#include <cmath>

#include "base/log.h"
#include "base/random.h"
#include "data/synthetic/problems.h"
#include "formats/hugging_face.h"
#include "text/word_tokenizer.h"

namespace molt::distill_test {

namespace support {

// Models this small are faster on one thread, and their numbers must not depend on how busy the machine is.
class OneThread : public testing::Environment {
 public:
  void SetUp() override {
    at::set_num_threads(1);
    set_log_level(LogLevel::warning);
  }
};
[[maybe_unused]] const testing::Environment* const one_thread = testing::AddGlobalTestEnvironment(new OneThread);

}  // namespace support

std::shared_ptr<const Tokenizer> tokenizer() {
  static const std::shared_ptr<const Tokenizer> made =
      Tokenizer::parse(make_word_tokenizer(vocabulary_words()), "tokenizer.json");
  return made;
}

ModelConfig teacher_config(std::int64_t layers) {
  auto config = parse<ModelConfig>(concat(R"(
hidden_size: 32
decoder:
  type: fixed
  num_blocks: )",
                                          layers, R"(
  block: {mixer: {type: attention, heads: 4, head_groups: 2, head_size: 8}, mlp: {intermediate_size: 48}}
)"));
  config.vocabulary = tokenizer()->vocabulary();
  config.max_positions = 512;
  return config;
}

std::unique_ptr<Model> new_teacher(std::int64_t layers, std::uint64_t seed) {
  auto model = std::make_unique<Model>(teacher_config(layers));
  model->initialise({seed, 0.15}, at::kCPU, at::kFloat);
  return model;
}

TargetMixerConfig mamba() {
  TargetMixerConfig target = TargetMixerConfig::of("mamba");
  parse_config("{state_size: 8, dt_rank: 4}", "mamba", {}, [&](ConfigVisitor& v) { target.settings->visit(v); });
  return target;
}

PackedBatch random_batch(const std::vector<int>& lengths, std::uint64_t seed) {
  Random random(seed);
  std::vector<PackedBatch::Sample> samples;
  for (const int length : lengths) {
    PackedBatch::Sample sample;
    for (int i = 0; i < length; ++i) {
      sample.tokens.push_back(static_cast<std::int32_t>(random.below(tokenizer()->vocabulary())));
      sample.weights.push_back(static_cast<float>(random.below(3)));
    }
    samples.push_back(sample);
  }
  return PackedBatch::of(samples);
}

void write_folder(Model& model, const fs::path& folder) {
  const fs::path words = folder.string() + "-tokenizer";
  fs::create_directories(words);
  write_file(words / "tokenizer.json", make_word_tokenizer(vocabulary_words()));
  write_file(words / "tokenizer_config.json", word_tokenizer_config());
  export_model(model, folder, {.like = words});
}

double difference(const at::Tensor& a, const at::Tensor& b) {
  if (a.sizes() != b.sizes()) return INFINITY;
  return (a.detach().to(at::kDouble) - b.detach().to(at::kDouble)).abs().max().item<double>();
}

at::Tensor parameter(const Model& model, const std::string& name) {
  for (const Parameter& each : model.share()->parameters()) {
    if (each.name == name) return each.value;
  }
  return {};
}

bool same_weights(const Model& a, const Model& b) {
  const auto left = a.share(), right = b.share();
  const std::vector<Parameter> ours = left->parameters(), theirs = right->parameters();
  if (ours.size() != theirs.size()) return false;
  for (std::size_t i = 0; i < ours.size(); ++i) {
    if (ours[i].name != theirs[i].name || !at::equal(ours[i].value, theirs[i].value)) return false;
  }
  return true;
}

}  // namespace molt::distill_test
