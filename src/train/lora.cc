#include "train/lora.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "base/error.h"
#include "base/random.h"
#include "formats/hugging_face.h"
#include "formats/peft.h"
#include "model/initialise.h"
#include "train/patterns.h"

namespace molt {

void LoraConfig::visit(ConfigVisitor& v) {
  v.field("rank", rank, "Of each update");
  v.field("alpha", alpha, "An update is alpha / rank times the product of its factors");
  v.field("targets", targets,
          "Glob patterns of projections as files name them, by their last part (q_proj, *_proj) or whole "
          "(model.layers.3.*); the last match decides, a leading ! excludes");
  v.field("start", start, "Folder, checkpoint or run of adapters to go on from; they bring rank, alpha and targets");
  if (!v.reading()) return;
  require(rank >= 1, v.place(), ": rank: found ", rank, ", expected at least 1");
  require(alpha > 0, v.place(), ": alpha: found ", alpha, ", expected a positive number");
}

namespace lora {

// "q_proj" as "*.q_proj", which matches whole names.
std::string whole_pattern(const std::string& pattern) {
  if (pattern.find('.') != std::string::npos) return pattern;
  return pattern.starts_with('!') ? "!*." + pattern.substr(1) : "*." + pattern;
}

// A pattern that chooses nothing is usually a word that another family has, or a slip.
void check_targets(const std::vector<std::string>& targets, const std::vector<std::string>& modules, const std::string& place) {
  std::set<std::string> leaves;
  for (const std::string& module : modules) leaves.insert(module.substr(module.rfind('.') + 1));
  const std::vector<std::string> names(leaves.begin(), leaves.end());
  for (const std::string& target : targets) {
    const std::string pattern = whole_pattern(target), glob = pattern.substr(pattern.starts_with('!') ? 1 : 0);
    if (std::any_of(modules.begin(), modules.end(), [&](const std::string& module) { return matches_glob(glob, module); }))
      continue;
    std::string known;
    for (const std::string& name : names) known += (known.empty() ? "" : ", ") + name;
    const std::string near = nearest(target, names);
    fail(place, ".targets: found \"", target, "\", which is no projection of this model's layers: ", known,
         near.empty() ? "" : concat(" (did you mean \"", near, "\"?)"));
  }
}

}  // namespace lora

void add_adapters(Model& model, const LoraConfig& config, std::uint64_t seed, const std::string& place) {
  if (!config.start.empty()) {
    const fs::path folder = resolve_model_folder(config.start);
    require(is_adapter_folder(folder), place, ".start: found ", folder.string(), ", which holds no adapters");
    attach_adapters(model, PeftAdapter::open(folder));
    return;
  }
  std::vector<std::string> modules, patterns;
  for (const Projection& projection : projections(model)) modules.push_back(projection.module);
  for (const std::string& pattern : config.targets) patterns.push_back(lora::whole_pattern(pattern));
  lora::check_targets(config.targets, modules, place);
  const std::set<std::string> chosen = select_names(patterns, modules, place + ".targets");
  for (const Projection& projection : projections(model)) {
    if (!chosen.contains(projection.module)) continue;
    Linear& linear = *projection.linear;
    const at::TensorOptions like = linear.weight.options().requires_grad(false);
    const double bound = 1 / std::sqrt(static_cast<double>(linear.in()));
    const at::Tensor A = random_uniform({config.rank, linear.in()}, -bound, bound, derive_seed(seed, projection.module)).to(like);
    const at::Tensor B = at::zeros({projection.rows, config.rank}, like);
    linear.adapters.push_back({projection.section, A, B, config.alpha / static_cast<double>(config.rank)});
  }
}

}  // namespace molt
