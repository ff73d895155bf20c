// libFuzzer on config.json: one that molt cannot follow ends in a UserError; one that it can is written and read again as the
// same model.
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/config.h"
#include "base/error.h"
#include "formats/config_json.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    const molt::Json config = molt::parse_json(text, "fuzz");
    const molt::ModelConfig model = molt::parse_model_config(config, "fuzz");
    if (model.blocks.size() > 100) return 0;
    const molt::OrderedJson written =
        molt::make_config_json(model, molt::family_for(model, config), molt::OrderedJson(config), "float32");
    const molt::ModelConfig again = molt::parse_model_config(molt::Json(written), "written");
    if (molt::to_yaml(again) != molt::to_yaml(model)) __builtin_trap();
  } catch (const molt::UserError&) {
  }
  return 0;
}
