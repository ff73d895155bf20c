// ModelConfig ↔ config.json.
#pragma once
#include <string>

#include "base/json.h"
#include "formats/family.h"
#include "model/config.h"

namespace molt {

ModelConfig parse_model_config(const Json& config, const std::string& place);

// The config.json of a model in a family. `like` is the one that it came from (or null): its other keys are kept, and where its
// values mean the same already they stay as they are written, so that an unchanged model gives an unchanged file. `dtype` is the
// word for the weights' dtype ("bfloat16"). UserError when one key would have to hold two values ("layer 7: …").
OrderedJson make_config_json(const ModelConfig& model, const Family& family, const OrderedJson& like, const std::string& dtype);

}  // namespace molt
