// The positional CONFIG or RECIPE of a command, before it is read.
#pragma once
#include <string>

namespace molt {

enum class ConfigurationKind { training, recipe, preparation };

// Where what was given in place of a configuration belongs, with the command to call: "data goes to --input: molt prepare …".
struct ElsewhereHints {
  std::string data;   // of files of samples
  std::string model;  // of folders and files of weights
};

// UserError for a folder, for a file that by its name holds samples or weights, and for one whose keys are another kind's: as
// YAML these would be refused for a reason that does not help (a line of JSON is YAML, too).
void check_configuration_file(const std::string& path, ConfigurationKind kind, const ElsewhereHints& hints);

}  // namespace molt
