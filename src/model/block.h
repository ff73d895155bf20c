// One decoder layer: norm, mixer, residual, norm, MLP, residual.
#pragma once
#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <string>

#include "model/config.h"
#include "model/linear.h"
#include "model/mixer.h"
#include "model/taps.h"

namespace molt {

enum class Recompute { none, mixer, block };  // what backward computes again instead of keeping

class Block {
 public:
  Block(const BlockConfig& config, const ModelConfig& model);

  // (tokens, hidden) -> (tokens, hidden). `name` ("layers.7") prefixes taps.
  at::Tensor forward(const at::Tensor& hidden, const PackedBatch& batch, Recompute recompute, const std::string& name,
                     Taps* taps) const;
  at::Tensor extend(const at::Tensor& hidden, const Step& step, BlockCache& cache) const;
  void visit(const std::string& prefix, const ParameterVisitor& visitor);
  double flops(std::int64_t context) const;

  const BlockConfig& config() const { return config_; }
  Mixer& mixer() { return *mixers_.at(config_.active); }
  const Mixer& mixer() const { return *mixers_.at(config_.active); }
  // Puts a mixer under a name and makes it the active one; the others stay. `config` describes it.
  void set_mixer(const std::string& name, std::unique_ptr<Mixer> mixer);
  // Leaves only the active mixer.
  void drop_inactive();
  void activate(const std::string& name);

  at::Tensor mixer_norm, mlp_norm;  // (hidden)
  Linear gate_up, down;             // sections gate | up

 private:
  BlockConfig config_;
  double norm_epsilon_;
  std::map<std::string, std::unique_ptr<Mixer>> mixers_;
};

}  // namespace molt
