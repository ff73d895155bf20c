// Turns tokens back into text, one at a time: decoding a whole sequence is the same as streaming it.
#pragma once
#include <memory>
#include <string>
#include <string_view>

#include "base/json.h"

namespace molt::text {

// Takes tokens in fragments; each fragment is valid UTF-8 and `ends_token` says whether the token is whole with it.
class TokenSink {
 public:
  virtual ~TokenSink() = default;
  virtual void put(std::string_view fragment, bool ends_token) = 0;
  // No more tokens: passes on what was held back. Afterwards the sink is as new.
  virtual void finish() = 0;
};

class Decoder {
 public:
  virtual ~Decoder() = default;
  // A stage that decodes what is put into it and puts the result into `next`.
  virtual std::unique_ptr<TokenSink> open(std::unique_ptr<TokenSink> next) const = 0;
};

// From the `decoder` of a tokenizer.json: ByteLevel, Replace, ByteFallback, Fuse, Strip, Metaspace, Sequence.
std::unique_ptr<Decoder> make_decoder(const Json& json, const std::string& place);
// For a file without a decoder: tokens with a space between them.
std::unique_ptr<Decoder> join_with_spaces();

// The end of a chain: appends everything to `text`, which must outlive it.
std::unique_ptr<TokenSink> append_to(std::string& text);

}  // namespace molt::text
