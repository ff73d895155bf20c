// Filters of lists and dicts.
#pragma once
#include <string_view>

#include "text/chat_template/builtins.h"

namespace molt::jinja {

using FilterFunction = Value (*)(Evaluator&, const Value&, const Arguments&);

// Null where there is none of this name.
FilterFunction find_list_filter(std::string_view name);

}  // namespace molt::jinja
