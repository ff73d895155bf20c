// libFuzzer on tokenizer.json: one that is none, or whose parts molt does not have, ends in a UserError; one that is encodes and
// decodes any text.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "text/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const auto tokenizer = molt::Tokenizer::parse({reinterpret_cast<const char*>(data), size}, "fuzz");
    for (const std::string_view text : {"", " a  b\n", "Grüße, 你好 🙂 e\u0301 <s>x</s>", "\xC3(\xFF 3.14"}) {
      tokenizer->decode(tokenizer->encode(text), false);
    }
  } catch (const molt::UserError&) {
  }
  return 0;
}
