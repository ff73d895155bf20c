// Tokens to a tree, by Jinja's grammar.
#pragma once
#include "text/chat_template/lexer.h"
#include "text/chat_template/tree.h"

namespace molt::jinja {

// UserError with line and column for what is no template, for statements that chat templates have no use for (include, extends,
// block, …) and for nesting deeper than 150 levels.
Body parse(const Source& source);

}  // namespace molt::jinja
