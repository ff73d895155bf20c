#include "text/token_settings.h"

#include <algorithm>
#include <map>

#include "text/component.h"
#include "text/vocabulary.h"

namespace molt::text {
namespace token_settings {

constexpr const char* usual[] = {"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"};
constexpr const char *main = "tokenizer_config.json", *map = "special_tokens_map.json", *decoder = "added_tokens_decoder";

// An object, empty where there is no such file.
OrderedJson read_object(const fs::path& path) {
  if (!fs::exists(path)) return OrderedJson::object();
  OrderedJson object = parse_ordered_json(read_file(path), path.string());
  require(object.is_object(), path.string(), ": found ", object.type_name(), ", expected an object");
  return object;
}

// A token that is named: its text, or an object with `content` and how it is found.
AddedTokens::Token special_token(const OrderedJson& value, const std::string& place) {
  require(value.is_string() || value.is_object(), place, ": found ", to_line(value), ", expected a token");
  AddedTokens::Token token;
  token.normalized = false;
  if (value.is_object()) {
    token = parse_added_token(Json(value), place);
  } else {
    token.content = value.get<std::string>();
  }
  token.special = true;
  return token;
}

class Reader {
 public:
  explicit Reader(const fs::path& folder) : folder_(folder), config_(read_object(folder / main)) {}

  TokenSettings read() {
    const bool early = !config_.contains(decoder);
    if (early) outranking_ = read_object(folder_ / map);
    config_.update(outranking_);
    for (const char* name : usual) name_token(name);
    for (const auto& [key, value] : config_.items()) {
      if (key.ends_with("_token") && !is_usual(key) && (value.is_string() || value.is_object())) name_token(key);
    }
    read_extra();
    early ? read_early() : read_decoder();
    settings_.added.insert(settings_.added.end(), special_.begin(), special_.end());
    return std::move(settings_);
  }

 private:
  static bool is_usual(const std::string& name) { return std::find(std::begin(usual), std::end(usual), name) != std::end(usual); }

  std::string place_of(const std::string& key) const {
    return concat((folder_ / (outranking_.contains(key) ? map : main)).string(), ": ", key);
  }

  void name_token(const std::string& name, const OrderedJson& value, const std::string& place) {
    special_.push_back(special_token(value, place));
    settings_.named.emplace_back(name, special_.back().content);
  }

  void name_token(const std::string& name) {
    const auto found = config_.find(name);
    if (found != config_.end() && !found->is_null()) name_token(name, *found, place_of(name));
  }

  // Tokens without a name of their own, or an object of named ones.
  void read_extra() {
    for (const char* key : {"extra_special_tokens", "additional_special_tokens"}) {
      const auto found = config_.find(key);
      if (found == config_.end() || found->is_null() || found->empty()) continue;
      const std::string place = place_of(key);
      require(found->is_structured(), place, ": found ", to_line(*found), ", expected a list or an object of tokens");
      for (const auto& [name, value] : found->items()) {
        if (found->is_object()) {
          name_token(name, value, concat(place, ": ", name));
        } else {
          special_.push_back(special_token(value, concat(place, "[", name, "]")));
        }
      }
      return;
    }
  }

  void read_decoder() {
    const std::string place = place_of(decoder);
    const OrderedJson& tokens = config_[decoder];
    require(tokens.is_object(), place, ": found ", tokens.type_name(), ", expected an object of ids and tokens");
    std::map<std::int32_t, AddedTokens::Token> by_id;
    for (const auto& [id, value] : tokens.items()) {
      const std::string at = concat(place, ": ", id);
      AddedTokens::Token token = parse_added_token(Json(value), at);
      token.id = parse_id(parse_json(id, at), at);
      by_id[token.id] = std::move(token);
    }
    for (auto& [id, token] : by_id) settings_.added.push_back(std::move(token));
  }

  // added_tokens.json, an object of tokens and ids, of which only the order counts.
  void read_early() {
    const fs::path path = folder_ / "added_tokens.json";
    const OrderedJson tokens = read_object(path);
    std::map<std::int32_t, AddedTokens::Token> by_id;
    for (const auto& [content, id] : tokens.items()) {
      AddedTokens::Token token;
      token.content = content;
      token.special = std::any_of(special_.begin(), special_.end(), [&](const auto& named) { return named.content == content; });
      token.normalized = !token.special;
      by_id[parse_id(Json(id), concat(path.string(), ": ", content))] = std::move(token);
    }
    for (auto& [id, token] : by_id) settings_.added.push_back(std::move(token));
  }

  fs::path folder_;
  OrderedJson config_, outranking_ = OrderedJson::object();
  TokenSettings settings_;
  std::vector<AddedTokens::Token> special_;
};

}  // namespace token_settings

const std::string* TokenSettings::find(const std::string& name) const {
  const auto found = std::find_if(named.begin(), named.end(), [&](const auto& entry) { return entry.first == name; });
  return found == named.end() ? nullptr : &found->second;
}

TokenSettings read_token_settings(const fs::path& folder) {
  return token_settings::Reader(folder).read();
}

}  // namespace molt::text
