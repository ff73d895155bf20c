// Models as Hugging Face folders (config.json, safetensors, tokenizer files), read and written: the families of family.h, among
// them the hybrids of model_type apriel_hybrid_ssm. A folder is read exactly as its own code reads it, or refused
// in one line (UserError: file, key or tensor, found, expected).
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "base/files.h"
#include "model/config.h"
#include "model/model.h"

namespace molt {

// What a MODEL argument stands for: a folder with config.json itself, one of adapters (peft.h), the `export` folder inside a
// checkpoint, or the export of a run's newest checkpoint (the highest number among <run>/checkpoints/*). All that follows takes
// adapters for the model that they make of their base.
fs::path resolve_model_folder(const fs::path& model);

// Whether a folder is a model's itself, of whole weights or of adapters.
bool holds_model(const fs::path& folder);

// From config.json alone: cheap.
ModelConfig read_model_config(const fs::path& folder);

// The dtype that the folder stores its embedding in, which stands for the whole model's.
at::ScalarType stored_dtype(const fs::path& folder);

// What config.json calls a dtype: "float32", "bfloat16", "float16". UserError for others.
std::string dtype_word(at::ScalarType dtype);

struct LoadOptions {
  at::Device device = at::kCPU;
  std::optional<at::ScalarType> dtype = {};  // fp32 on the CPU, the stored one on a GPU; A_log and D are fp32 always
};

// Every tensor that the layout needs must be there, with its shape, and no other. On the CPU a tensor whose dtype and layout in
// the file suit is used where it lies in the mapped file (read-only: see ops and FlatBuffer for what trains), others are copied.
std::unique_ptr<Model> load_model(const fs::path& folder, const LoadOptions& options = {});

struct ExportOptions {
  std::optional<at::ScalarType> dtype = {};  // of floating tensors (A_log and D stay fp32); as they are in memory when not given
  std::int64_t max_shard_bytes = 5'000'000'000;
  // Gives the parameters that the model holds on the meta device, by canonical name, one after another as they are written, in
  // the dtype that they have there: so a model need not be in memory to be written.
  std::function<at::Tensor(const std::string& parameter)> source = {};
  // Called with the bytes of the weights and of free disk before the first is written. Too little is a UserError in any case.
  std::function<void(std::int64_t bytes, std::int64_t free)> before_writing = {};
  // The Hugging Face folder that the model came from, such as its teacher's. Keys of its config.json that molt does not use, its
  // tokenizer, chat template and generation settings are carried over, and its family is kept when it can express the model.
  fs::path like = {};
  std::map<std::string, std::string> metadata = {};  // of the safetensors files, beside "format": "pt"
  std::string model_card = {};                       // README.md; none when empty
};

// ExportOptions::max_shard_bytes from a setting in GB, which `place` names ("--shard-size") where it is no positive number.
std::int64_t shard_bytes(double gigabytes, const std::string& place);

// Writes a whole folder or none (AtomicFolder); an existing folder of that name is replaced. Without `like`, or where its family
// cannot express the model: the first family that can, Mistral for attention without biases and norms, apriel_hybrid_ssm for any
// layout. Only the active mixer of each block is written. Hybrids come with the Python files that transformers loads them with
// (trust_remote_code). UserError when no family can express the model (two Mamba layers of different sizes, say). A folder that
// is loaded in its stored dtype and exported `like` itself has the same bytes in every tensor.
void export_model(Model& model, const fs::path& folder, const ExportOptions& options = {});

}  // namespace molt
