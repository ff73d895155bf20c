// Where a mixer's settings stand in config.json.
#pragma once
#include <map>
#include <string>

#include "base/json.h"
#include "model/mixer.h"

namespace molt {

// Sets a mixer's fields from a completed config.json (complete_config).
void read_mixer_keys(MixerConfig& config, const Json& complete, const std::string& place);

// The values that describe the mixer, by path in config.json ("num_attention_heads", "ssm_cfg.d_state"). Fields without a
// published place stand under "molt.<type>", and only where they differ from their defaults.
std::map<std::string, Json> mixer_keys(const MixerConfig& config);

// The value at a path ("ssm_cfg.d_state"), or null.
Json value_at(const Json& config, const std::string& path);

}  // namespace molt
