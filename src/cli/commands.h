// Every command, one file each.
#pragma once
#include "cli/arguments.h"

namespace molt {

Command prepare_command();
Command synthesize_command();

}  // namespace molt
