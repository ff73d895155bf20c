// Where rotary positions stand in config.json: `rope_theta` beside `rope_scaling`, or both in `rope_parameters` as transformers 5
// writes them.
#pragma once
#include <string>

#include "base/json.h"
#include "model/rotary.h"

namespace molt {

// As transformers reads them: a rope_scaling outranks rope_parameters, a theta inside outranks rope_theta, `type` is an old word
// for `rope_type`; yarn and llama3 take original_max_position_embeddings of the file, then of the settings, then
// max_position_embeddings; yarn's attention factor may follow from mscale and mscale_all_dim. UserError for scalings that molt
// does not have and for settings that give no frequencies.
RotaryConfig read_rotary(const Json& config, const std::string& place);

// One form for each meaning: equal for equal configurations. {"rope_type": …, "rope_theta": …, …}.
Json rotary_json(const RotaryConfig& rotary);

// Writes the settings into a config.json, in the form that it has already.
void set_rotary(OrderedJson& config, const RotaryConfig& rotary);

}  // namespace molt
