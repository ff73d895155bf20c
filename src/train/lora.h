// Training low-rank adapters of a model's projections while its own weights stay as they are (LoRA, arXiv 2106.09685).
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "base/config.h"
#include "model/model.h"

namespace molt {

struct LoraConfig {
  std::int64_t rank = 16;
  double alpha = 32;                         // the update is alpha / rank B A
  std::vector<std::string> targets = {"*"};  // globs of modules as files name them; without a dot of their last part: "q_proj"
  std::string start;                         // adapter folder to go on from, in place of new adapters
  void visit(ConfigVisitor& visitor);
};

// Puts new adapters on the chosen projections, in the dtype and on the device of their weights: A uniform in +-1 / sqrt(in), as
// in peft, from `seed` and the module's name; B zero, so that the model computes what it did. Or those of config.start. UserError
// of `place` ("train.yaml: model.lora") for a pattern that chooses nothing.
void add_adapters(Model& model, const LoraConfig& config, std::uint64_t seed, const std::string& place);

}  // namespace molt
