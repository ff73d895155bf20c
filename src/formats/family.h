// The model families that Hugging Face folders come in, as tables: what config.json may leave out, what its code does in any
// case, what it must not ask for, and how tensors are called. Adding a family is adding a row.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "model/config.h"

namespace molt {

// The path in a completed config.json that says whether the MLP has biases.
constexpr const char* mlp_bias_path = "molt.mlp.bias";

// A yes or no of the architecture: a key of config.json, or what the family's code does in any case.
struct FamilyOption {
  bool value;                 // without a key, or where config.json lacks it
  const char* key = nullptr;  // path in config.json; null where the family has no choice
};

// Which attention layers see only `sliding_window` tokens.
enum class Windows {
  none,
  all,      // every one, unless the key is null
  by_layer  // those of layer_types or from max_window_layers on, if use_sliding_window says so
};

struct Family {
  const char* model_type;
  const char* architecture;
  Windows windows;
  bool layout;  // has hybrid_block_layout and the settings of mixers other than attention
  FamilyOption qkv_bias, output_bias, qk_norm, mlp_bias;
  const char* defaults;  // JSON: what the family's own code takes for keys that config.json lacks

  // Each option with the path that it has in a completed config.json of any family.
  std::vector<std::pair<const char*, FamilyOption>> options() const;
};

const std::vector<Family>& families();

// By model_type and architectures. UserError lists the known ones.
const Family& family_of(const Json& config, const std::string& place);

// The family of `like` (a config.json, or null) when it can express the model, otherwise the first that can.
const Family& family_for(const ModelConfig& model, const Json& like);

// A config.json with every key filled in that a model is made from: defaults merged, nulls resolved, rope_parameters as
// rotary_json has them whatever way they were written, options under the paths of Family::options, and one letter a layer in
// hybrid_block_layout ("swa" for every windowed attention layer) in every family. UserError for settings that change the
// mathematics in a way that molt does not follow.
Json complete_config(const Json& config, const Family& family, const std::string& place);

// What a model's tensors are called on disk, the mixers' own apart (mixer_kind(…).tensor_names): the same in all families.
// `section` and `stored` as in TensorName; a block's names are below "layers.N." here and "model.layers.N." there.
struct StoredName {
  const char* parameter;
  const char* section;
  const char* stored;
};
const std::vector<StoredName>& model_tensor_names();
const std::vector<StoredName>& block_tensor_names();

// Tensors that some folders hold beside the parameters and that may be ignored: buffers that are computed anyway.
bool is_ignorable_tensor(const std::string& name, const ModelConfig& model);

}  // namespace molt
