// Units at an answer's end.
#pragma once
#include <span>
#include <string>
#include <utility>

#include "evaluate/answer/tokens.h"

namespace molt::answer {

// The tokens without their unit, and the unit's name ("cm", "cm^2", "%", "degree", "dollar"), "" when there is none. Letters
// behind a number are one when they are a known unit, stand in \text{…}, or are a word of their own.
std::pair<std::span<const Token>, std::string> take_unit(std::span<const Token> tokens);

}  // namespace molt::answer
