#include "text/special_tokens.h"

#include <algorithm>

#include "text/component.h"
#include "text/vocabulary.h"

namespace molt::text {
namespace special_tokens {

// The member of a configuration, or null.
const Json* present(const Json& config, const char* key) {
  const auto found = config.find(key);
  return found == config.end() || found->is_null() ? nullptr : &*found;
}

std::optional<std::string> token_text(const Json& config, const char* key, const std::string& place) {
  const Json* token = present(config, key);
  if (!token) return std::nullopt;
  return token->is_object() ? get<std::string>(*token, "content", concat(place, ": ", key))
                            : get<std::string>(config, key, place);
}

std::vector<std::int32_t> token_ids(const Json& config, const char* key, const std::string& place) {
  const Json* value = present(config, key);
  if (!value) return {};
  if (!value->is_array()) return {parse_id(*value, concat(place, ": ", key))};
  std::vector<std::int32_t> ids;
  for (const Json& id : *value) ids.push_back(parse_id(id, concat(place, ": ", key)));
  return ids;
}

void add_once(std::vector<std::int32_t>& ids, std::int32_t id) {
  if (std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
}

}  // namespace special_tokens

SpecialTokens read_special_tokens(const fs::path& folder,
                                  const std::function<std::optional<std::int32_t>(std::string_view)>& id_of) {
  SpecialTokens special;
  const auto read = [&](const char* name) -> std::optional<std::pair<Json, std::string>> {
    const fs::path path = folder / name;
    if (!fs::exists(path)) return std::nullopt;
    Json config = read_json(path);
    require(config.is_object(), path.string(), ": found ", config.type_name(), ", expected an object");
    return std::pair(std::move(config), path.string());
  };
  if (const auto found = read("tokenizer_config.json")) {
    const auto& [config, place] = *found;
    if (const auto bos = special_tokens::token_text(config, "bos_token", place)) special.bos = id_of(*bos);
    if (const auto eos = special_tokens::token_text(config, "eos_token", place)) {
      if (const auto id = id_of(*eos)) special_tokens::add_once(special.stop, *id);
    }
  }
  for (const char* name : {"generation_config.json", "config.json"}) {
    const auto found = read(name);
    if (!found) continue;
    const auto& [config, place] = *found;
    const auto bos = special_tokens::token_ids(config, "bos_token_id", place);
    if (!special.bos && !bos.empty()) special.bos = bos.front();
    for (const std::int32_t id : special_tokens::token_ids(config, "eos_token_id", place))
      special_tokens::add_once(special.stop, id);
  }
  return special;
}

}  // namespace molt::text
