// Renders what test_chat_template.py asks for: a case a line ({"template": …, "messages": […], …}), a result a line
// ({"text": …, "generated": [[begin, end], …]} in bytes, or {"error": …}), which it compares with what Jinja gives.
#include <gtest/gtest.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json.h"
#include "text/chat_template.h"

namespace molt {
namespace chat_template_parity_test {

const OrderedJson* member(const OrderedJson& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() ? nullptr : &*found;
}

OrderedJson render(const OrderedJson& one) {
  try {
    const auto chat = one.contains("folder") ? ChatTemplate::read(one["folder"].get<std::string>())
                                             : ChatTemplate::parse(one["template"].get<std::string>(), "template");
    if (!chat) return {{"error", "no template"}};
    ChatInput input{.messages = one.at("messages"),
                    .tools = member(one, "tools"),
                    .documents = member(one, "documents"),
                    .add_generation_prompt = one.value("add_generation_prompt", false),
                    .variables = member(one, "variables")};
    const RenderedChat result = chat->render(input);
    return {{"text", result.text}, {"generated", result.generated}};
  } catch (const UserError& error) {
    return {{"error", error.what()}};
  }
}

TEST(ChatTemplateParity, RendersCases) {
  const char* folder = std::getenv("MOLT_CHAT_CASES");
  if (!folder) GTEST_SKIP() << "test_chat_template.py sets MOLT_CHAT_CASES";
  LineReader cases(fs::path(folder) / "cases.jsonl");
  std::string results;
  std::string_view line;
  while (cases.next(line)) results += to_line(render(parse_ordered_json(line, cases.place()))) + "\n";
  write_file(fs::path(folder) / "results.jsonl", results);
}

}  // namespace chat_template_parity_test
}  // namespace molt
