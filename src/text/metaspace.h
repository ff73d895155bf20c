// The options that Metaspace has as a pre-tokenizer and as a decoder: spaces become a visible mark and come back.
#pragma once
#include <string>

#include "base/json.h"

namespace molt::text {

struct Metaspace {
  enum class Prepend { always, first, never };  // where a piece that does not begin with the mark gets one

  std::string mark;  // one character, "▁" as a rule
  Prepend prepend;
  bool split;  // cut before every mark

  Metaspace(const Json& json, const std::string& place);
};

}  // namespace molt::text
