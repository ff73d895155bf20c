// What a model's folder holds beside weights and config.json that a user of the model needs.
#pragma once
#include "base/files.h"

namespace molt {

// Copies the tokenizer's files and settings, chat templates, the settings of generation and licences, where `from` has them.
void carry_over(const fs::path& from, const fs::path& to);

}  // namespace molt
