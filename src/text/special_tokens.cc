#include "text/special_tokens.h"

#include <algorithm>

#include "text/component.h"
#include "text/vocabulary.h"

namespace molt::text {
namespace special_tokens {

// An id, a list of ids, or none where the key is missing or null.
std::vector<std::int32_t> token_ids(const Json& config, const char* key, const std::string& place) {
  const auto value = config.find(key);
  if (value == config.end() || value->is_null()) return {};
  if (!value->is_array()) return {parse_id(*value, concat(place, ": ", key))};
  std::vector<std::int32_t> ids;
  for (const Json& id : *value) ids.push_back(parse_id(id, concat(place, ": ", key)));
  return ids;
}

void add_once(std::vector<std::int32_t>& ids, std::int32_t id) {
  if (std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
}

}  // namespace special_tokens

SpecialTokens read_special_tokens(const fs::path& folder, const TokenSettings& settings,
                                  const std::function<std::optional<std::int32_t>(std::string_view)>& id_of) {
  SpecialTokens special;
  if (const std::string* bos = settings.find("bos_token")) special.bos = id_of(*bos);
  if (const std::string* eos = settings.find("eos_token")) {
    if (const auto id = id_of(*eos)) special_tokens::add_once(special.stop, *id);
  }
  for (const char* name : {"generation_config.json", "config.json"}) {
    const fs::path path = folder / name;
    if (!fs::exists(path)) continue;
    const std::string place = path.string();
    const Json config = read_json(path);
    require(config.is_object(), place, ": found ", config.type_name(), ", expected an object");
    const auto bos = special_tokens::token_ids(config, "bos_token_id", place);
    if (!special.bos && !bos.empty()) special.bos = bos.front();
    for (const std::int32_t id : special_tokens::token_ids(config, "eos_token_id", place))
      special_tokens::add_once(special.stop, id);
  }
  return special;
}

}  // namespace molt::text
