// molt inspect --batch: what a step learns, token by token.
#pragma once
#include <cstdint>
#include <string>

#include "base/files.h"

namespace molt {

// Prints the micro-batches of a step, each token with its loss weight (data/batch_text.h), spelled by the model's tokenizer.
// `source` is the configuration of a training (its batches in the order of its seed, or of its own data section), a folder of
// token shards (in the order of seed 0), or a file of batches that a run's guard saved, which holds one step.
void show_batch(const fs::path& model, const std::string& source, std::int64_t step);

}  // namespace molt
