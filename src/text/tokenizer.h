// Text to token ids and back as Hugging Face `tokenizers` does it, read from a model's tokenizer.json.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/files.h"

namespace molt {

// A loaded tokenizer never changes: every const member may be called from several threads at once.
//
//   const auto tokenizer = Tokenizer::load("teacher");
//   const std::vector<std::int32_t> ids = tokenizer->encode("Once upon a time");   // with the special tokens of its template
//   const std::string text = tokenizer->decode(ids);                               // without them
class Tokenizer {
 public:
  // Reads tokenizer.json from a model's folder or by its own path. Beside it, where they exist: bos, eos and further tokens from
  // tokenizer_config.json (token_settings.h), eos ids from generation_config.json and config.json. What is broken or unknown is a
  // UserError that names file and key ("tokenizer.json: pre_tokenizer.type: found \"Magic\", expected one of ByteLevel, Digits,
  // …").
  static std::shared_ptr<const Tokenizer> load(const fs::path& folder_or_file);
  // From the text of a tokenizer.json alone; `place` names it in errors.
  static std::shared_ptr<const Tokenizer> parse(std::string_view json, const std::string& place);
  ~Tokenizer();
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  // Added tokens inside the text ("</s>") become their ids. Bytes that are no UTF-8 count as U+FFFD. Truncation and padding, if
  // the file asks for them, are not applied. `add_special_tokens` puts the tokens of the post-processor around the text.
  std::vector<std::int32_t> encode(std::string_view text, bool add_special_tokens = true) const;
  // Ids without a token give no text. The result is valid UTF-8.
  std::string decode(std::span<const std::int32_t> ids, bool skip_special_tokens = true) const;

  // One more than the largest id: every id of encode() is in [0, vocabulary()). A model's own vocabulary may be padded beyond it.
  std::int64_t vocabulary() const;
  std::optional<std::int32_t> id(std::string_view token) const;
  // The token as the file spells it ("Ġthe", "▁the"); empty where the id has none.
  std::string token(std::int32_t id) const;
  bool is_special(std::int32_t id) const;

  std::optional<std::int32_t> bos() const;
  // The first of stop_tokens() by the order tokenizer_config.json, generation_config.json, config.json.
  std::optional<std::int32_t> eos() const;
  // Every id that ends a generation, each once, in that order; empty if no file names one.
  const std::vector<std::int32_t>& stop_tokens() const;

 private:
  friend class StreamDecoder;
  struct Parts;
  explicit Tokenizer(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

// decode() token by token: the pieces, joined, are what decode() gives for the same ids, and each is whole UTF-8. Text is held
// back only while later tokens could still change it (half a character, a run of byte tokens).
class StreamDecoder {
 public:
  explicit StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special_tokens = true);
  ~StreamDecoder();
  StreamDecoder(StreamDecoder&&) noexcept;
  StreamDecoder& operator=(StreamDecoder&&) noexcept;

  std::string push(std::int32_t id);
  // What was held back. Afterwards the decoder is as new.
  std::string finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace molt
