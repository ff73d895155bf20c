// The block that hidden states pass unchanged (letter "i"): it has no parameters, no cache and costs nothing.
#pragma once
#include "model/mixer.h"

namespace molt {

MixerKind identity_kind();

}  // namespace molt
