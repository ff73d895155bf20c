#include "train/support.h"

#include <ATen/Parallel.h>
#include <stdlib.h>

#include <limits>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "base/random.h"
#include "formats/safetensors.h"

namespace molt::test {

std::unique_ptr<Model> tiny_model(at::ScalarType dtype) {
  ModelConfig config;
  parse_config(R"(
hidden_size: 32
vocabulary: 32
decoder:
  type: layout
  blocks:
    full: {mixer: {type: attention, heads: 4, head_groups: 2, head_size: 8}, mlp: {intermediate_size: 48}}
    state: {mixer: {type: mamba, d_inner: 32, d_xb: 16, state_size: 4, dt_rank: 4}, mlp: {intermediate_size: 48}}
  layout: [full, state]
)",
               "tiny", {}, [&](ConfigVisitor& v) { config.visit(v); });
  auto model = std::make_unique<Model>(config);
  model->initialise({3, 0.1}, at::kCPU, dtype);
  return model;
}

PackedBatch CountingSource::next(std::int64_t max_tokens) {
  if (before_next) before_next();
  std::vector<PackedBatch::Sample> samples;
  for (std::int64_t room = max_tokens; samples_a_batch_ == 0 || std::ssize(samples) < samples_a_batch_;) {
    Random random(derive_seed(11, "sample", static_cast<std::uint64_t>(taken_)));
    const std::int64_t length = random.between(4, 11), first = random.below(32);
    if (samples_a_batch_ == 0 && length > room) break;
    PackedBatch::Sample sample;
    for (std::int64_t i = 0; i < length; ++i) {
      sample.tokens.push_back(static_cast<std::int32_t>((first + i) % 32));
      sample.weights.push_back(static_cast<float>(random.below(4)) / 2);
    }
    room -= length;
    ++taken_;
    samples.push_back(std::move(sample));
  }
  return PackedBatch::of(samples);
}

Json CountingSource::position() const {
  return {{"sample", taken_}};
}

void CountingSource::restore(const Json& position) {
  taken_ = get<std::int64_t>(position, "sample", "position");
}

Objective::Loss BreakingObjective::loss(const Model& model, const PackedBatch& batch, Recompute recompute) {
  Loss loss = NextToken::loss(model, batch, recompute);
  if (calls_++ == broken_call_) loss.sum = loss.sum * std::numeric_limits<double>::infinity();
  return loss;
}

LoopConfig short_loop() {
  LoopConfig config;
  config.steps = 24;
  config.micro_batch_tokens = 40;
  config.micro_batches = 2;
  config.optimizer.learning_rate = 1e-2;
  config.schedule.warmup = 4;
  config.log_every = 4;
  config.evaluate_every = 6;
  config.checkpoint_every = 5;
  return config;
}

namespace run_parts {

std::vector<PackedBatch> held_out_batches() {
  CountingSource source;
  source.restore({{"sample", 1000}});
  return {source.next(40), source.next(40)};
}

// Stands for a Hugging Face folder: the export's format is another room's.
void export_weights(Model& model, const fs::path& folder) {
  AtomicFolder whole(folder);
  NamedTensors tensors;
  for (const Parameter& parameter : model.parameters()) tensors.emplace_back(parameter.name, parameter.value.detach());
  write_safetensors(whole.path() / "model.safetensors", tensors);
  whole.commit();
}

}  // namespace run_parts

TinyRun::TinyRun(const fs::path& folder, LoopConfig loop)
    : config(std::move(loop)),
      held_out("held_out", next_token, run_parts::held_out_batches()),
      parts{*model, next_token, source, {&held_out}, folder, run_parts::export_weights, to_yaml(config), 0, {{"molt", "test"}}} {}

std::vector<Json> lines_of(const fs::path& path) {
  std::vector<Json> lines;
  LineReader reader(path);
  for (std::string_view line; reader.next(line);) lines.push_back(parse_json(line, reader.place()));
  return lines;
}

std::vector<std::string> timeless_metrics(const fs::path& run) {
  std::vector<std::string> result;
  for (Json line : lines_of(run / "metrics.jsonl")) {
    for (const char* key : {"tokens_per_second", "flops_per_second", "mfu", "memory", "seconds"}) line.erase(key);
    result.push_back(to_line(line));
  }
  return result;
}

std::set<std::string> names_in(const fs::path& folder) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.insert(entry.path().filename().string());
  return names;
}

RunFolder::RunFolder() : threads_(at::get_num_threads()) {
  set_log_level(LogLevel::warning);
  at::set_num_threads(1);
}

RunFolder::~RunFolder() {
  at::set_num_threads(threads_);
}

}  // namespace molt::test
