// A decoder-only language model: embeddings, blocks, final norm, head. Single-device code; parallelism is applied from outside.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "model/block.h"
#include "model/config.h"

namespace molt {

class Model {
 public:
  // Modules with tensors on the meta device: load (formats/) or initialise them.
  explicit Model(ModelConfig config);

  // Hidden states after the final norm, (tokens, hidden); the head is applied by the losses, chunk by chunk.
  at::Tensor forward(const PackedBatch& batch, Recompute recompute = Recompute::none, Taps* taps = nullptr) const;
  // (tokens, hidden) -> logits (tokens, vocabulary), in the weights' dtype.
  at::Tensor logits(const at::Tensor& hidden) const;

  // Hidden states after the final norm of the new tokens; updates the caches, one BlockCache a layer.
  at::Tensor extend(const Step& step, std::vector<BlockCache>& caches) const;
  std::vector<std::vector<CacheEntry>> cache_spec() const;  // one list a layer

  void visit(const ParameterVisitor& visitor);
  std::vector<Parameter> parameters();
  // Fills every tensor that is still on the meta device with new weights, on `device` in `dtype` (fp32 where a mixer insists).
  void initialise(const InitialiseOptions& options, at::Device device, at::ScalarType dtype);
  // Moves every tensor; floating ones are cast except those kept in fp32 (A_log, D). Tensors shared between names stay shared.
  // Undoes flatten_trainable: call it before.
  void to(at::Device device, at::ScalarType dtype);
  // Whether the parameter of this canonical name stays in fp32 in a model of fewer bits.
  bool keeps_fp32(const std::string& name) const;
  // A model with the same modules whose tensors share this one's storage (and require no gradient yet).
  std::unique_ptr<Model> share() const;

  // Keeps the projections of mixers and MLPs in eight bits (Linear::to_fp8): a frozen model that is not written to a file.
  // Embeddings and head stay as they are.
  void to_fp8();

  // Adds the adapters of every projection to its weight (Linear::merged_weight); there are none afterwards.
  void merge_adapters();

  double flops(std::int64_t context) const;  // of one token's forward pass, head included
  const ModelConfig& config() const { return config_; }
  // Puts a mixer in place of layer i's and keeps config() in step.
  void set_mixer(std::int64_t layer, const std::string& name, std::unique_ptr<Mixer> mixer);
  // Chooses among layer i's mixers, and keeps config() in step.
  void activate(std::int64_t layer, const std::string& name);
  // Leaves each layer only its active mixer.
  void drop_inactive();
  at::Device device() const { return embedding.device(); }
  at::ScalarType dtype() const { return embedding.scalar_type(); }
  const at::Tensor& head_weight() const { return config_.tied_embeddings ? embedding : head.weight; }

  at::Tensor embedding;  // (vocabulary, hidden)
  std::vector<Block> blocks;
  at::Tensor final_norm;  // (hidden)
  Linear head;            // hidden -> vocabulary; empty when embeddings are tied

 private:
  // After a layer's mixers changed.
  void follow(std::int64_t layer);
  void prepare_rotary(at::Device device);
  ops::RotaryTable rotary_table(const at::Tensor& positions, const Sequences& sequences) const;
  at::ScalarType stored_dtype(const std::string& name, at::ScalarType dtype) const;

  ModelConfig config_;
  std::int64_t rotary_width_ = 0;  // 0: no mixer turns anything
  ops::Rotary rotary_;             // its frequencies, ready on the device that the weights were last moved to
};

}  // namespace molt
