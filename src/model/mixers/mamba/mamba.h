// Mamba-1 with heads, as M1, Mamba-in-Llama and Apriel-H1 have it (the published layer, `m2` on disk):
//
//   z | x | B | C = in_proj(hidden)          dt = dt_proj(dt_in_proj(hidden)), its bias added inside the scan
//   x = silu(conv1d(x))                      depthwise, causal
//   y = selective scan of x, dt, B, C with A = -exp(A_log), skip D and gate silu(z)
//   out_proj(y)
//
// x and B have d_xb columns in groups of `state_size`; each group serves d_inner / d_xb groups of C, z and the channels, as key
// heads do in grouped-query attention. Nothing is repeated in memory. dt's bias acts once (the published code adds it twice; the
// files hold half of ours).
#pragma once
#include "model/config.h"
#include "model/linear.h"
#include "model/mixer.h"
#include "ops/causal_conv/causal_conv.h"
#include "ops/mamba_scan/mamba_scan.h"
#include "ops/mamba_update/mamba_update.h"
#include "ops/selective_scan/selective_scan.h"

namespace molt {

// `type: mamba`.
class MambaConfig : public MixerConfig {
 public:
  std::string type() const override { return "mamba"; }
  void visit(ConfigVisitor& visitor) override;
  std::unique_ptr<MixerConfig> clone() const override { return std::make_unique<MambaConfig>(*this); }
  // d_inner = heads * head_size and d_xb = head_groups * head_size of the model's attention, where they are 0.
  void complete(const std::vector<std::shared_ptr<const MixerConfig>>& others) override;

  std::int64_t d_inner = 0, d_xb = 0;  // 0: not known yet
  std::int64_t state_size = 16;
  std::int64_t dt_rank = 16;
  std::int64_t d_conv = 4;
  bool repeat_kv_before_conv = true;  // the convolution has d_inner channels; else d_xb, and its result is repeated
  bool conv_bias = true;
  double dt_min = 1e-3, dt_max = 1e-1, dt_init_floor = 1e-4;  // of the step sizes that a new layer begins with

  // How from_attention lays the attention's weights: as published; with each 16-wide slice of a query paired with its own slice
  // of the key ("aligned"); not at all.
  std::string initialisation = "published";
};

class MambaMixer : public Mixer {
 public:
  MambaMixer(const MambaConfig& config, const ModelConfig& model);

  at::Tensor forward(const at::Tensor& hidden, const PackedBatch& batch) const override;
  at::Tensor extend(const at::Tensor& hidden, const Step& step, BlockCache& cache) const override;
  // "conv" (d_xb, d_conv - 1) and "state" (d_inner, state_size) fp32, a sequence.
  std::vector<CacheEntry> cache_spec() const override;
  bool replayable() const override { return A_log.size(1) <= ops::kLargestUpdateState; }
  void visit(const std::string& prefix, const ParameterVisitor& visitor) override;
  std::vector<Linear*> projections() override { return {&in_proj, &out_proj}; }
  // As Mamba does: A_log = log(1 … state_size), D = 1, dt's bias the inverse softplus of log-uniform step sizes, conv1d as
  // PyTorch.
  void initialise(const InitialiseOptions& options) override;
  bool keeps_fp32(const std::string& parameter) const override { return parameter == "A_log" || parameter == "D"; }
  double flops(std::int64_t context) const override;
  double kept_states(std::int64_t tokens, at::ScalarType dtype, at::Device device) const override;
  const MambaConfig& config() const override { return config_; }

  Linear in_proj, dt_in_proj, dt_proj, out_proj;  // in_proj: sections z | x | B | C
  at::Tensor conv_weight, conv_bias;              // (channels, 1, d_conv), (channels) or undefined
  at::Tensor A_log, D;                            // (d_inner, state_size), (d_inner)

 private:
  // The operations' inputs for these tokens; the parts of zxBC and the scan's x and dt (dt_proj of dt_low) are left open.
  struct Inputs {
    at::Tensor zxBC;
    ops::ConvInput conv;
    ops::ScanInput scan;
    at::Tensor dt_low;
  };
  Inputs project(const at::Tensor& hidden) const;

  MambaConfig config_;
};

MixerKind mamba_kind();

// The mixer that takes over from an attention layer (Mamba-in-Llama): x <- v, B <- k, C <- q, out_proj <- o; the rest
// initialised. UserError when sizes do not fit. Of what some attention layers have besides:
// - norms of q and k (Qwen3) are left out, as the rotary embedding is: B and C are the projections before them. The norm divides
// by
//   a length that differs from token to token, which no weight can say.
// - The bias of v goes into the convolution's bias, if there is one.
// - The bias of k is left out: a softmax without positions does not see it, since it adds the same to all scores of a query. So
// are
//   those of q and of the output, for which the published layer has no place.
std::unique_ptr<Mixer> mamba_from_attention(const MixerConfig& config, const ModelConfig& model, const Mixer& attention,
                                            const InitialiseOptions& options);

}  // namespace molt
