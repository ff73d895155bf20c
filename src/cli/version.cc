#include "cli/version.h"

#include "revision.inc"

namespace molt {

std::map<std::string, std::string> program_versions() {
  return {{"molt", MOLT_VERSION}, {"revision", molt_revision}};
}

}  // namespace molt
