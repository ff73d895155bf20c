// libFuzzer on chat templates: text that is no template ends in a UserError, and none crashes, hangs or takes much memory. The
// input is the template; the conversation is the same each time.
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/error.h"
#include "text/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const molt::OrderedJson messages = {{{"role", "system"}, {"content", "Be brief."}},
                                             {{"role", "user"}, {"content", "Grüße 🙂\n"}},
                                             {{"role", "assistant"}, {"content", " 1, 2 "}, {"reasoning", "so"}}};
  static const molt::OrderedJson tools = {
      {{"type", "function"}, {"function", {{"name", "f"}, {"parameters", {{"a", {1, 2.5, true}}}}}}}};
  static const molt::OrderedJson variables = {{"n", -3}, {"l", {3, "b", nullptr}}, {"bos_token", "<s>"}};
  try {
    const auto chat = molt::ChatTemplate::parse({reinterpret_cast<const char*>(data), size}, "fuzz");
    chat.render({.messages = messages, .tools = &tools, .add_generation_prompt = true, .variables = &variables},
                {.steps = 20'000, .bytes = 4 << 20}, 1'700'000'000);
  } catch (const molt::UserError&) {
  }
  return 0;
}
