// One decoder layer: norm, mixer, residual, norm, MLP, residual.
#pragma once
#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "model/config.h"
#include "model/linear.h"
#include "model/mixer.h"
#include "model/taps.h"

namespace molt {

enum class Recompute { none, mixer, block };  // what backward computes again instead of keeping
enum class Bypass { none, mixer, block };     // what hidden states pass unchanged (leave-one-out; the identity block)

class Block {
 public:
  Block(const BlockConfig& config, const ModelConfig& model);

  // (tokens, hidden) -> (tokens, hidden). `name` ("layers.7") prefixes taps. A block with a wanted tap keeps all its activations,
  // whatever `recompute` says. The block must outlive the graph.
  at::Tensor forward(const at::Tensor& hidden, const PackedBatch& batch, Recompute recompute, const std::string& name,
                     Taps* taps) const;
  at::Tensor extend(const at::Tensor& hidden, const Step& step, BlockCache& cache) const;
  void visit(const std::string& prefix, const ParameterVisitor& visitor);
  // Fills each tensor that is still on the meta device, in fp32 on the CPU.
  void initialise(const InitialiseOptions& options);
  // Whether a parameter, named as below the block's prefix ("mixers.mamba.A_log"), stays in fp32 in a model of fewer bits.
  bool keeps_fp32(const std::string& parameter) const;
  double flops(std::int64_t context) const;
  // Mixer::kept_states of the mixer, if it is not passed by.
  double kept_states(std::int64_t tokens, at::ScalarType dtype, at::Device device) const;

  const BlockConfig& config() const { return config_; }
  Mixer& mixer() { return *mixers_.at(config_.active); }
  const Mixer& mixer() const { return *mixers_.at(config_.active); }
  // Puts a mixer under a name and makes it the active one; the others stay. For a model's block, call Model's function of the
  // same name (as with the next two), which keeps the model's configuration in step.
  void set_mixer(const std::string& name, std::unique_ptr<Mixer> mixer);
  // Leaves only the active mixer.
  void drop_inactive();
  void activate(const std::string& name);

  at::Tensor mixer_norm, mlp_norm;  // (hidden)
  Linear gate_up, down;             // sections gate | up
  Bypass bypass = Bypass::none;     // may be set and unset at any time; always `block` for an identity block

 private:
  // The MLP of `normed`, added to `residual`.
  at::Tensor feed_forward(const at::Tensor& normed, const at::Tensor& residual) const;
  // The MLP's half: hidden + mixer_output enters the norm and the residual.
  at::Tensor finish(const at::Tensor& mixer_output, const at::Tensor& hidden) const;
  at::Tensor mlp_alone(const at::Tensor& hidden) const;
  // The leaves that require a gradient in what is computed again.
  std::vector<at::Tensor> trained(Recompute part) const;

  BlockConfig config_;
  double norm_epsilon_;
  std::map<std::string, std::unique_ptr<Mixer>> mixers_;
};

}  // namespace molt
