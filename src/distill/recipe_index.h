// recipe.json, the index of a recipe's folder (recipe.h has its format).
#pragma once
#include <nlohmann/json.hpp>
#include <string>

#include "distill/recipe.h"

namespace molt {

class RecipeIndex {
 public:
  // Continues the index that the folder holds, for the stages that the recipe has.
  RecipeIndex(const RecipeConfig& recipe, const std::string& name);

  OrderedJson& teacher() { return json_["teacher"]; }
  OrderedJson& stage(const std::string& name);
  bool finished(const std::string& stage);
  void write() const;
  const OrderedJson& json() const { return json_; }

 private:
  fs::path path_;
  OrderedJson json_;
};

}  // namespace molt
