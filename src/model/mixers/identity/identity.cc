#include "model/mixers/identity/identity.h"

#include <ATen/Functions.h>

namespace molt {

namespace identity_detail {

class IdentityConfig : public MixerConfig {
 public:
  std::string type() const override { return "identity"; }
  void visit(ConfigVisitor&) override {}
  std::unique_ptr<MixerConfig> clone() const override { return std::make_unique<IdentityConfig>(*this); }
};

// Adds nothing to the residual stream; its block passes the MLP by as well.
class IdentityMixer : public Mixer {
 public:
  at::Tensor forward(const at::Tensor& hidden, const PackedBatch&) const override { return at::zeros_like(hidden); }
  at::Tensor extend(const at::Tensor& hidden, const Step&, BlockCache&) const override { return at::zeros_like(hidden); }
  std::vector<CacheEntry> cache_spec() const override { return {}; }
  void visit(const std::string&, const ParameterVisitor&) override {}
  void initialise(const InitialiseOptions&) override {}
  double flops(std::int64_t) const override { return 0; }
  const MixerConfig& config() const override { return config_; }

 private:
  IdentityConfig config_;
};

}  // namespace identity_detail

MixerKind identity_kind() {
  using namespace identity_detail;
  return {"identity",
          "i",
          []() -> std::unique_ptr<MixerConfig> { return std::make_unique<IdentityConfig>(); },
          [](const MixerConfig&, const ModelConfig&) -> std::unique_ptr<Mixer> { return std::make_unique<IdentityMixer>(); },
          [](const MixerConfig&) { return std::vector<TensorName>(); },
          nullptr};
}

}  // namespace molt
