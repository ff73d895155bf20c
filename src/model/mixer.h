// The interface that makes the system modular: what mixes tokens inside a block. A new mixer is a new folder under model/mixers/,
// a line in registry.cc and its class in the exported Python file; nothing else changes.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/config.h"
#include "model/batch.h"
#include "model/parameters.h"
#include "model/step.h"

namespace molt {

struct ModelConfig;

// The settings of one mixer, owned by its folder.
class MixerConfig {
 public:
  virtual ~MixerConfig() = default;
  virtual std::string type() const = 0;  // "attention", "sliding_window", "mamba", "identity"
  virtual void visit(ConfigVisitor& visitor) = 0;
  virtual std::unique_ptr<MixerConfig> clone() const = 0;
  // Fills in what the settings leave open and another mixer of the model says (Mamba's d_xb: the attention's key heads).
  virtual void complete(const std::vector<std::shared_ptr<const MixerConfig>>& /*others*/) {}
};

// Where new weights come from when a layer is initialised rather than loaded.
struct InitialiseOptions {
  std::uint64_t seed = 0;
  double standard_deviation = 0.02;  // of projection weights
};

class Mixer {
 public:
  virtual ~Mixer() = default;

  // Training and scoring: (tokens, hidden) -> (tokens, hidden). Never mixes two sequences of the batch.
  virtual at::Tensor forward(const at::Tensor& hidden, const PackedBatch& batch) const = 0;

  // Generation: the new tokens of `step`, after what `cache` holds; updates the cache in place. No gradients.
  virtual at::Tensor extend(const at::Tensor& hidden, const Step& step, BlockCache& cache) const = 0;
  virtual std::vector<CacheEntry> cache_spec() const = 0;
  // Whether extend() of one new token a sequence only hands work to a GPU, reading lengths and slots there: then a step can be
  // recorded once and replayed with other lengths, and rows whose slots are negative change nothing.
  virtual bool replayable() const { return true; }

  // Names each parameter once: visitor(prefix + ".in_proj.weight", …).
  virtual void visit(const std::string& prefix, const ParameterVisitor& visitor) = 0;
  // Fills each tensor that is still on the meta device with new weights, in fp32 on the CPU.
  virtual void initialise(const InitialiseOptions& options) = 0;
  // Whether a parameter, named as below the mixer's prefix ("A_log"), stays in fp32 in a model of fewer bits.
  virtual bool keeps_fp32(const std::string& /*parameter*/) const { return false; }
  // Projections that a frozen model may keep in eight bits: those of which nothing but forward() is used.
  virtual std::vector<Linear*> projections() { return {}; }
  // How many values of a head are turned by batch.rotary and step.rotary; 0: they are not read.
  virtual std::int64_t rotary_width() const { return 0; }

  // Multiply-adds counted as two, for one token that sees `context` tokens (itself included). Products, scans and convolutions
  // count; norms and activations do not.
  virtual double flops(std::int64_t context) const = 0;

  // Bytes that forward() of a sequence of so many tokens keeps for backward beside what goes into its products and comes out.
  virtual double kept_states(std::int64_t /*tokens*/, at::ScalarType /*dtype*/, at::Device /*device*/) const { return 0; }

  virtual const MixerConfig& config() const = 0;
};

// How a mixer's tensors are called on disk: one row a tensor (or a tensor's row section).
struct TensorName {
  std::string parameter;  // canonical, below the mixer's prefix: "qkv.weight"
  std::string section;    // row section of the Linear, or "" for the whole tensor: "q"
  std::string stored;     // below the layer's prefix on disk: "self_attn.q_proj.weight"
  double scale = 1.0;     // in memory = stored * scale (the published Mamba counts dt's bias twice); a power of two, so exact
  std::int64_t rows = 0;  // of the section (a section's rows follow those of the row before it); 0 with section ""
};

// The entry of a kind of mixer in the registry.
struct MixerKind {
  std::string type;    // in the published YAML
  std::string letter;  // in hybrid_block_layout: "t", "swa", "m2", "i"
  std::unique_ptr<MixerConfig> (*make_config)();
  std::unique_ptr<Mixer> (*make)(const MixerConfig& config, const ModelConfig& model);
  std::vector<TensorName> (*tensor_names)(const MixerConfig& config);
  // The mixer that takes over from an attention layer, weights copied as its folder documents, the rest initialised; null where
  // there is no such thing. `attention` must be an attention mixer. Options of the mapping are in `config`. UserError says what
  // does not fit and why.
  std::unique_ptr<Mixer> (*from_attention)(const MixerConfig& config, const ModelConfig& model, const Mixer& attention,
                                           const InitialiseOptions& options);
};

const std::vector<MixerKind>& mixer_kinds();
// UserError listing the known ones if there is none.
const MixerKind& mixer_kind(const std::string& type, const std::string& place);
const MixerKind& mixer_kind_by_letter(const std::string& letter, const std::string& place);

}  // namespace molt
