// Low-rank adapters (LoRA, arXiv 2106.09685) as peft keeps them: a folder with adapter_config.json and adapter_model.safetensors,
// whose tensors are "base_model.model.MODULE.lora_A.weight" (rank, in) and "base_model.model.MODULE.lora_B.weight" (rows, rank)
// of modules such as "model.layers.0.self_attn.q_proj". The module's weight acts as weight + scale B A with scale = alpha / rank.
// Every error is a UserError that names file and key or tensor.
#pragma once
#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <vector>

#include "base/files.h"
#include "model/model.h"

namespace molt {

// Whether a folder holds adapters alone.
bool is_adapter_folder(const fs::path& folder);
// The folder of the whole model: `folder` itself, or the one that its adapter_config.json names (base_model_name_or_path, from
// the working directory or from the adapter's folder).
fs::path base_folder(const fs::path& folder);
// Where a model's tokenizer and chat template lie: an adapter's folder may have its own, otherwise they are the base's.
fs::path tokenizer_folder(const fs::path& folder);

struct PeftAdapter {
  struct Update {
    at::Tensor A, B;  // in the mapped file
    double scale;
  };

  // UserError for what peft can do beside LoRA of linear layers: DoRA, biases, whole modules, other kinds of adapters.
  static PeftAdapter open(const fs::path& folder);

  fs::path folder, base;
  std::map<std::string, Update> updates;  // by module
};

// A projection of a model's layers under the name that its files have for it.
struct Projection {
  std::string module;  // "model.layers.0.self_attn.q_proj"
  Linear* linear;
  std::string section;  // of linear, "" for all of its rows
  std::int64_t rows;
};
// Those that may be adapted: every one but the head's, and but those of inactive mixers.
std::vector<Projection> projections(Model& model);

// Puts an adapter's updates into the model's projections, unmerged, in their dtype on their device. UserError for a module or a
// shape that the model does not have.
void attach_adapters(Model& model, const PeftAdapter& adapter);

// Writes the model's adapters as a folder that peft loads onto the model in `base`, and that stands wherever a MODEL may; with
// the tokenizer's files of `base`. Whole or absent.
void export_adapters(Model& model, const fs::path& folder, const fs::path& base);

}  // namespace molt
