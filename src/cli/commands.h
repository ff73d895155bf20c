// Every command, one file each.
#pragma once
#include "cli/arguments.h"

namespace molt {

Command bench_command();
Command chat_command();
Command compare_command();
Command config_command();
Command convert_command();
Command distill_command();
Command evaluate_command();
Command generate_command();
Command inspect_command();
Command logits_command();
Command prepare_command();
Command rank_command();
Command report_command();
Command synthesize_command();
Command train_command();

}  // namespace molt
