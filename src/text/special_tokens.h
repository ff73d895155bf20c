// Which ids begin and end a text, from the files beside a tokenizer.json.
#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/files.h"
#include "text/token_settings.h"

namespace molt::text {

struct SpecialTokens {
  std::optional<std::int32_t> bos;
  std::vector<std::int32_t> stop;  // each once
};

// bos_token and eos_token of the settings (one that `id_of` does not know is passed over), then, where they exist in the folder,
// bos_token_id and eos_token_id (an id or a list of ids) of generation_config.json and config.json.
SpecialTokens read_special_tokens(const fs::path& folder, const TokenSettings& settings,
                                  const std::function<std::optional<std::int32_t>(std::string_view)>& id_of);

}  // namespace molt::text
