#include "distill/recipe_index.h"

#include <algorithm>

#include "base/error.h"

namespace molt {

RecipeIndex::RecipeIndex(const RecipeConfig& recipe, const std::string& name) : path_(fs::path(recipe.output) / "recipe.json") {
  OrderedJson before;
  if (fs::exists(path_)) {
    before = parse_ordered_json(read_file(path_), path_.string());
    const auto is_object = [](const OrderedJson& json) { return json.is_object(); };
    require(before.is_object() && before.contains("teacher") && before["teacher"].is_object() && before.contains("stages") &&
                before["stages"].is_array() && std::all_of(before["stages"].begin(), before["stages"].end(), is_object),
            path_.string(), ": found no index of a recipe's stages");
  }
  json_["recipe"] = name;
  json_["teacher"] = before.is_null() ? OrderedJson::object() : before["teacher"];
  json_["stages"] = OrderedJson::array();
  for (const StageConfig& stage : recipe.stages) {
    OrderedJson entry = {{"name", stage.name}, {"from", stage.from}, {"status", "pending"}, {"mamba_layers", stage.mamba_layers}};
    if (before.is_object()) {
      for (const auto& old : before["stages"]) {
        if (old.value("name", "") == stage.name) entry = old;
      }
    }
    json_["stages"].push_back(entry);
  }
}

OrderedJson& RecipeIndex::stage(const std::string& name) {
  for (OrderedJson& entry : json_["stages"]) {
    if (entry["name"] == name) return entry;
  }
  MOLT_CHECK(false, "no stage ", name);
}

bool RecipeIndex::finished(const std::string& name) {
  return stage(name).value("status", "") == "finished";
}

void RecipeIndex::write() const {
  fs::create_directories(path_.parent_path());
  write_json(path_, json_);
}

}  // namespace molt
