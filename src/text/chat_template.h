// Conversations to text as a model's chat template lays them out: what transformers' apply_chat_template gives.
#pragma once
#include <cstdint>
#include <ctime>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/files.h"
#include "base/json.h"

namespace molt {

// What a template is given. Members that are null are None to it.
struct ChatInput {
  const OrderedJson& messages;             // a list of objects, "role" and "content" and whatever else the template reads
  const OrderedJson* tools = nullptr;      // a list of JSON schemas
  const OrderedJson* documents = nullptr;  // a list of objects
  bool add_generation_prompt = false;
  const OrderedJson* variables = nullptr;  // an object: more variables (enable_thinking, date_string, …)
};

struct RenderedChat {
  std::string text;
  // Bytes of the text, begin and end, that stand inside {% generation %}: what an assistant wrote.
  std::vector<std::pair<std::size_t, std::size_t>> generated;
};

// What one rendering may cost at most, so that a hostile template ends with an error. Bytes count all text and lists that are
// made on the way, dropped ones too.
struct ChatLimits {
  std::int64_t steps = 20'000'000;
  std::int64_t bytes = std::int64_t{256} << 20;
};

// A parsed template; rendering changes nothing in it, so several threads may share one.
//
// The language is Jinja as transformers sets it up: a sandbox in which lists and dicts do not change, trim_blocks, lstrip_blocks,
// break and continue, {% generation %}, tojson, raise_exception, strftime_now. Not supported, and a UserError with line and
// column where it is met: recursive for, blocks, includes and imports, whole numbers beyond 64 bits, the filters and methods that
// are about HTML, files or the width of a page. `safe` marks nothing, as nothing is escaped.
class ChatTemplate {
 public:
  // The template of a model's folder: chat_template.jinja with additional_chat_templates/*.jinja, else "chat_template" of
  // tokenizer_config.json (text, or a list of {"name": …, "template": …}); nothing where it has none. Special tokens
  // (bos_token, …) come from tokenizer_config.json (token_settings.h). UserError for what is broken.
  static std::optional<ChatTemplate> read(const fs::path& folder);
  // `place` names the text in errors ("chat_template.jinja:3:14: …").
  static ChatTemplate parse(std::string_view text, const std::string& place);

  ~ChatTemplate();
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;

  // Of several templates, "tool_use" where there are tools, else "default". As transformers does, members of messages that are
  // null are left out, and reasoning is there under each of its names. UserError with line and column for what the template does
  // wrong, for what it refuses (raise_exception), and beyond the limits.
  RenderedChat render(const ChatInput& input, const ChatLimits& limits = {}) const;
  // The same at a time of its own for strftime_now, in seconds since 1970.
  RenderedChat render(const ChatInput& input, const ChatLimits& limits, std::time_t now) const;

 private:
  struct Parts;
  explicit ChatTemplate(std::unique_ptr<const Parts> parts);
  std::unique_ptr<const Parts> parts_;
};

}  // namespace molt
