#include "data/synthetic/config.h"

#include <iostream>

#include "base/error.h"
#include "cli/commands.h"
#include "data/prepare.h"
#include "distill/recipe.h"
#include "model/config.h"
#include "train/config.h"

namespace molt {

namespace config_command_parts {

struct Kind {
  const char* name;
  const char* file;
  std::string (*describe)();
};

template <ConfigSection T>
std::string description() {
  T config;
  return describe_config([&](ConfigVisitor& v) { config.visit(v); });
}

const std::vector<Kind>& kinds() {
  static const std::vector<Kind> all = {
      {"train", "molt train CONFIG", description<TrainConfig>},
      {"recipe", "molt distill RECIPE", description<RecipeConfig>},
      {"rank", "molt rank --set …, and `choose` of a recipe's stage", description<RankConfig>},
      {"prepare", "molt prepare CONFIG", description<PrepareConfig>},
      {"model", "model.base_model of a training, teacher.architecture of a recipe", description<ModelConfig>},
      {"synthesize", "data.synthetic of a training or a recipe", description<SyntheticConfig>},
  };
  return all;
}

int run(const std::string& wanted) {
  for (const Kind& kind : kinds()) {
    if (!wanted.empty() && wanted != kind.name) continue;
    if (wanted.empty()) std::cout << "# molt config " << kind.name << ": " << kind.file << "\n";
    std::cout << kind.describe() << (wanted.empty() ? "\n" : "");
  }
  return 0;
}

}  // namespace config_command_parts

Command config_command() {
  return {"config", "Show what the configuration files may say", [](Arguments& arguments) -> std::function<int()> {
            auto kind = std::make_shared<std::string>();
            std::vector<std::string> names;
            std::string listed;
            for (const auto& each : config_command_parts::kinds()) {
              names.push_back(each.name);
              listed += (listed.empty() ? "" : ", ") + names.back();
            }
            arguments.positional("KIND", *kind, listed + "; all of them without it", false);
            return [kind, names, listed] {
              bool known = kind->empty();
              for (const std::string& name : names) known = known || name == *kind;
              const std::string near = nearest(*kind, names);
              require(known, "molt config: found \"", *kind, "\", expected one of ", listed,
                      near.empty() ? "" : concat(" (did you mean \"", near, "\"?)"));
              return config_command_parts::run(*kind);
            };
          }};
}

}  // namespace molt
