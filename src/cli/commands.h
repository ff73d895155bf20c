// Every command, one file each.
#pragma once
#include "cli/arguments.h"

namespace molt {

Command compare_command();
Command config_command();
Command convert_command();
Command evaluate_command();
Command logits_command();
Command prepare_command();
Command synthesize_command();
Command train_command();

}  // namespace molt
