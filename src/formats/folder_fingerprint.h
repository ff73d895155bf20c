// Whether a model's folder is still the one that it was, cheaply: weights are looked at here and there.
#pragma once
#include <string>

#include "base/files.h"

namespace molt {

// 16 hexadecimal digits of config.json and, of every tensor, its name, dtype, shape and up to 4 KiB in 64 evenly spaced pieces;
// of adapters, both of them and of their base. The same weights in other shards have the same. UserError for what is no model.
std::string folder_fingerprint(const fs::path& folder);

}  // namespace molt
