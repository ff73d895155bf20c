#include "text/tokenizer.h"

#include <algorithm>
#include <utility>

#include "text/added_tokens.h"
#include "text/component.h"
#include "text/decoder.h"
#include "text/model.h"
#include "text/normalizer.h"
#include "text/post_processor.h"
#include "text/pre_tokenizer.h"
#include "text/special_tokens.h"
#include "text/token_settings.h"
#include "text/unicode.h"

namespace molt {

struct Tokenizer::Parts {
  Parts(const Json& json, const std::string& place);
  const std::string* decoded_token(std::int32_t id, bool skip_special_tokens) const;

  std::unique_ptr<text::Normalizer> normalizer;         // null: none
  std::unique_ptr<text::PreTokenizer> pre_tokenizer;    // null: none
  std::unique_ptr<text::PostProcessor> post_processor;  // null: none
  std::unique_ptr<text::Decoder> decoder;
  std::unique_ptr<text::TokenModel> model;
  text::AddedTokens added;
  text::SpecialTokens special;
};

Tokenizer::Parts::Parts(const Json& json, const std::string& place) {
  require(json.is_object(), place, ": found ", json.type_name(), ", expected an object");
  const auto version = get_or<std::string>(json, "version", "1.0", place);
  require(version == "1.0", place, ": version: found \"", version, "\", expected \"1.0\"");
  const auto part = [&](const char* key, auto* make) -> decltype(make(json, place)) {
    const auto found = json.find(key);
    if (found == json.end() || found->is_null()) return nullptr;
    return make(*found, concat(place, ": ", key));
  };
  normalizer = part("normalizer", text::make_normalizer);
  pre_tokenizer = part("pre_tokenizer", text::make_pre_tokenizer);
  post_processor = part("post_processor", text::make_post_processor);
  decoder = part("decoder", text::make_decoder);
  if (!decoder) decoder = text::join_with_spaces();
  model = text::make_model(text::member(json, "model", place), place + ": model");
  if (const auto list = json.find("added_tokens"); list != json.end() && !list->is_null()) {
    added = text::AddedTokens(*list, place + ": added_tokens", *model, normalizer.get());
  }
  if (!post_processor) return;
  for (const std::int32_t id : post_processor->apply({})) {
    require(decoded_token(id, false) != nullptr, place, ": post_processor: the id ", id, " has no token");
  }
}

// What decoders get for an id; null where it has no token or is left out.
const std::string* Tokenizer::Parts::decoded_token(std::int32_t id, bool skip_special_tokens) const {
  const std::string* text = added.decoded(id);
  if (!text) return model->vocabulary().token(id);
  return skip_special_tokens && added.is_special(*text) ? nullptr : text;
}

Tokenizer::Tokenizer(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
Tokenizer::~Tokenizer() = default;

std::shared_ptr<const Tokenizer> Tokenizer::parse(std::string_view json, const std::string& place) {
  return std::shared_ptr<const Tokenizer>(new Tokenizer(std::make_unique<Parts>(parse_json(json, place), place)));
}

std::shared_ptr<const Tokenizer> Tokenizer::load(const fs::path& folder_or_file) {
  const bool is_folder = fs::is_directory(folder_or_file);
  const fs::path folder = is_folder ? folder_or_file : folder_or_file.parent_path();
  const fs::path file = is_folder ? folder / "tokenizer.json" : folder_or_file;
  for (const char* other : {"tokenizer.model", "tekken.json", "vocab.json"}) {
    require(!is_folder || fs::exists(file) || !fs::exists(folder / other), folder.string(), ": found ", other,
            ", expected tokenizer.json: transformers' AutoTokenizer writes one with save_pretrained");
  }
  auto parts = std::make_unique<Parts>(read_json(file), file.string());
  std::shared_ptr<Tokenizer> tokenizer(new Tokenizer(std::move(parts)));
  const text::TokenSettings settings = text::read_token_settings(folder);
  Parts& made = *tokenizer->parts_;
  made.added.extend(settings.added, folder.string(), *made.model, made.normalizer.get());
  made.special =
      text::read_special_tokens(folder, settings, [&tokenizer](std::string_view token) { return tokenizer->id(token); });
  return tokenizer;
}

std::vector<std::int32_t> Tokenizer::encode(std::string_view input, bool add_special_tokens) const {
  std::string repaired;
  if (!text::is_valid_utf8(input)) {
    text::Utf8Repair repair;
    repair.push(input, repaired);
    repair.finish(repaired);
    input = repaired;
  }
  std::vector<std::int32_t> ids;
  const auto encode_between_tokens = [&](std::string_view stretch, bool starts_input) {
    text::Pieces pieces{std::string(stretch), {{0, stretch.size()}}, starts_input};
    if (parts_->pre_tokenizer) parts_->pre_tokenizer->apply(pieces);
    parts_->model->tokenize(pieces, ids);
  };
  for (const auto& [range, token] : parts_->added.find_in_input(input)) {
    if (token >= 0) {
      ids.push_back(token);
      continue;
    }
    std::string normalized(input.substr(range.begin, range.end - range.begin));
    if (parts_->normalizer) parts_->normalizer->apply(normalized);
    for (const auto& [inner, inner_token] : parts_->added.find_in_normalized(normalized)) {
      if (inner_token >= 0)
        ids.push_back(inner_token);
      else
        encode_between_tokens(std::string_view(normalized).substr(inner.begin, inner.end - inner.begin),
                              range.begin + inner.begin == 0);
    }
  }
  return add_special_tokens && parts_->post_processor ? parts_->post_processor->apply(std::move(ids)) : ids;
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids, bool skip_special_tokens) const {
  std::string text;
  const auto stage = parts_->decoder->open(text::append_to(text));
  for (const std::int32_t id : ids) {
    if (const auto* token = parts_->decoded_token(id, skip_special_tokens)) stage->put(*token, true);
  }
  stage->finish();
  return text;
}

std::int64_t Tokenizer::vocabulary() const {
  return std::max(parts_->model->vocabulary().end(), parts_->added.vocabulary().end());
}

std::optional<std::int32_t> Tokenizer::id(std::string_view token) const {
  const auto added = parts_->added.vocabulary().id(token);
  return added ? added : parts_->model->vocabulary().id(token);
}

std::string Tokenizer::token(std::int32_t id) const {
  if (const auto* added = parts_->added.token(id)) return added->content;
  const auto* token = parts_->model->vocabulary().token(id);
  return token ? *token : "";
}

bool Tokenizer::is_special(std::int32_t id) const {
  const auto* added = parts_->added.token(id);
  return added && added->special;
}

std::optional<std::int32_t> Tokenizer::bos() const {
  return parts_->special.bos;
}

std::optional<std::int32_t> Tokenizer::eos() const {
  const auto& stop = parts_->special.stop;
  return stop.empty() ? std::nullopt : std::optional(stop.front());
}

const std::vector<std::int32_t>& Tokenizer::stop_tokens() const {
  return parts_->special.stop;
}

struct StreamDecoder::State {
  State(std::shared_ptr<const Tokenizer> of, bool skip)
      : tokenizer(std::move(of)), skip_special_tokens(skip), stage(tokenizer->parts_->decoder->open(text::append_to(decoded))) {}

  std::string take() { return std::exchange(decoded, {}); }

  std::shared_ptr<const Tokenizer> tokenizer;
  bool skip_special_tokens;
  std::string decoded;  // since the last take()
  std::unique_ptr<text::TokenSink> stage;
};

StreamDecoder::StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special_tokens)
    : state_(std::make_unique<State>(std::move(tokenizer), skip_special_tokens)) {}
StreamDecoder::~StreamDecoder() = default;
StreamDecoder::StreamDecoder(StreamDecoder&&) noexcept = default;
StreamDecoder& StreamDecoder::operator=(StreamDecoder&&) noexcept = default;

std::string StreamDecoder::push(std::int32_t id) {
  if (const auto* token = state_->tokenizer->parts_->decoded_token(id, state_->skip_special_tokens))
    state_->stage->put(*token, true);
  return state_->take();
}

std::string StreamDecoder::finish() {
  state_->stage->finish();
  return state_->take();
}

}  // namespace molt
