// Causal softmax attention with grouped queries and rotary positions, over the whole sequence or a sliding window of it:
//
//   q | k | v = qkv(hidden)
//   q, k normalised head by head (RMSNorm with a weight of head_size each, as in Qwen3), if asked for, then turned by position
//   o_proj(softmax(q k^T / sqrt(head_size)) v)
#pragma once
#include "model/config.h"
#include "model/linear.h"
#include "model/mixer.h"

namespace molt {

// `type: attention`, and `type: sliding_window` with its window.
class AttentionConfig : public MixerConfig {
 public:
  explicit AttentionConfig(bool sliding = false) : sliding_(sliding) {}
  std::string type() const override { return sliding_ ? "sliding_window" : "attention"; }
  void visit(ConfigVisitor& visitor) override;
  std::unique_ptr<MixerConfig> clone() const override { return std::make_unique<AttentionConfig>(*this); }

  bool sliding() const { return sliding_; }
  std::int64_t query_size() const { return heads * head_size; }
  std::int64_t key_size() const { return head_groups * head_size; }

  std::int64_t heads = 0;
  std::int64_t head_groups = 0;  // heads of keys and values
  std::int64_t head_size = 0;
  bool qkv_bias = false, output_bias = false;
  bool qk_norm = false;     // RMSNorm of each head's query and key before they are turned
  std::int64_t window = 0;  // of a sliding window: how many tokens are seen, the token itself among them

 private:
  bool sliding_;
};

class AttentionMixer : public Mixer {
 public:
  AttentionMixer(const AttentionConfig& config, const ModelConfig& model);

  at::Tensor forward(const at::Tensor& hidden, const PackedBatch& batch) const override;
  at::Tensor extend(const at::Tensor& hidden, const Step& step, BlockCache& cache) const override;
  std::vector<CacheEntry> cache_spec() const override;  // "key" and "value" (head_groups, head_size) a token
  bool replayable() const override;
  void visit(const std::string& prefix, const ParameterVisitor& visitor) override;
  std::vector<Linear*> projections() override { return {&qkv, &o_proj}; }
  void initialise(const InitialiseOptions& options) override;
  std::int64_t rotary_width() const override { return config_.head_size; }
  double flops(std::int64_t context) const override;
  const AttentionConfig& config() const override { return config_; }

  Linear qkv, o_proj;         // sections q | k | v
  at::Tensor q_norm, k_norm;  // (head_size), or undefined

 private:
  // The projection with what turns its queries and keys.
  struct Projected {
    at::Tensor qkv;
    ops::RotaryTable table;
    std::int64_t heads, groups;
  };
  // `batch`: a PackedBatch or a Step.
  template <class Batch>
  Projected project(const at::Tensor& hidden, const Batch& batch) const;
  // Its parts with queries and keys normed, not turned yet.
  ops::QueryKeyValue normed(const Projected& projected) const;
  std::optional<std::int64_t> window() const { return config_.sliding() ? std::optional(config_.window) : std::nullopt; }

  AttentionConfig config_;
  RotaryConfig rotary_;
  double norm_epsilon_;
  double scale_;  // of the scores
};

MixerKind attention_kind();
MixerKind sliding_window_kind();

}  // namespace molt
