// The configuration of `molt train`: a model, what it learns from, how long. The published fragment of a distillation
// (model.base_model.head and reference_models) is accepted as it stands:
//
//   model:
//     pretrained: {format: mistral, path: models/tiny-teacher}
//     base_model:
//       head: {distillation_model: teacher, distillation_loss_implementation: reverse_kl}
//   reference_models:
//     teacher:
//       pretrained: {format: mistral, path: models/tiny-teacher}
//   data: {path: data/traces}
//   training: {steps: 1000}
//   output: runs/distilled
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "base/config.h"
#include "data/packed_source.h"
#include "model/config.h"
#include "model/model.h"
#include "ops/linear_loss/loss_mix.h"
#include "train/loop.h"
#include "train/lora.h"

namespace molt {

// A Hugging Face folder, a checkpoint or a run.
struct PretrainedConfig {
  std::string format = "auto";  // a model_type that the folder must have: mistral, llama, apriel_hybrid_ssm
  std::string path;
  void visit(ConfigVisitor& visitor);
};

// Weights of several divergences from the teacher.
struct DivergenceFactors {
  double reverse_kl = 0, forward_kl = 0, jsd = 0;
  void visit(ConfigVisitor& visitor);
};

// How far a student is from its teacher: what a training minimises and a ranking measures.
struct DivergenceConfig {
  std::string distillation_loss_implementation = "forward_kl";  // the better one on both teachers of docs/evidence.md
  double distillation_jsd_beta = 0.5;
  std::optional<DivergenceFactors> distillation_loss_mix;  // in place of the implementation
  double distillation_temperature = 1.0;
  void visit(ConfigVisitor& visitor);

  ops::LossMix divergence() const;
  std::string divergence_name() const;  // the implementation, or "mix"
};

// What the head's loss is.
struct HeadConfig : DivergenceConfig {
  std::string distillation_model;  // a name under reference_models; empty: no distillation
  double distillation_loss_factor = 1.0;
  double z_loss_factor = 0;                          // of log(sum of exp(logits))^2
  std::optional<double> language_model_loss_factor;  // of next-token cross-entropy: 0 with a distillation_model, 1 without
  void visit(ConfigVisitor& visitor);

  bool distills() const { return !distillation_model.empty(); }
  ops::LossMix mix() const;
};

struct BaseModelConfig {
  ModelConfig architecture;  // of a model that is initialised; a pretrained one brings its own
  HeadConfig head;
  void visit(ConfigVisitor& visitor);
};

struct ModelSourceConfig {
  std::optional<PretrainedConfig> pretrained;
  BaseModelConfig base_model;
  double initial_deviation = 0.02;
  std::optional<LoraConfig> lora;  // train adapters alone
  void visit(ConfigVisitor& visitor);
};

// A teacher: a model, or the logits that one left on disk.
struct ReferenceModelConfig {
  PretrainedConfig pretrained;
  std::vector<std::string> logits;  // folders of `molt logits --top-k`, one for each data set
  std::string dtype = "auto";       // "fp8": its projections (Model::to_fp8)
  void visit(ConfigVisitor& visitor);
};

// Data whose loss is measured at each evaluation.
struct HeldOutConfig {
  DataConfig data;
  std::int64_t tokens = 65536;
  void visit(ConfigVisitor& visitor);
};

struct TrainConfig {
  ModelSourceConfig model;
  std::map<std::string, ReferenceModelConfig> reference_models;
  std::string tokenizer;  // folder with tokenizer.json; empty: the pretrained model's
  DataConfig data;
  std::map<std::string, HeldOutConfig> held_out;
  LoopConfig training;
  std::int64_t seed = 0;
  std::string device = "auto", dtype = "auto";
  std::string output;
  double shard_size = 5;  // GB
  void visit(ConfigVisitor& visitor);
};

// The model of a section: loaded, or initialised with the seed. `place` ("train.yaml: model") starts the errors. dtype: weights
// are kept in it (fp32 where a mixer insists).
std::unique_ptr<Model> make_model(const ModelSourceConfig& config, std::uint64_t seed, at::Device device, at::ScalarType dtype,
                                  const std::string& place);
// A pretrained model; UserError when it is of another format than the section says.
std::unique_ptr<Model> load_pretrained(const PretrainedConfig& config, at::Device device, at::ScalarType dtype,
                                       const std::string& place);

// Batches of a source until they hold `tokens` tokens, for HeldOutLoss.
std::vector<PackedBatch> held_out_batches(BatchSource& source, std::int64_t tokens, std::int64_t micro_batch_tokens);

}  // namespace molt
