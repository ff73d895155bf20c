#include "text/chat_template.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "text/chat_template/evaluator.h"
#include "text/chat_template/parser.h"
#include "text/token_settings.h"

namespace molt {
namespace chat_template {

using jinja::Budget;
using jinja::Value;
using Entries = std::vector<std::pair<Value, Value>>;

struct Program {
  explicit Program(std::string_view text, const std::string& place) : source(text, place), body(jinja::parse(source)) {}
  jinja::Source source;
  jinja::Body body;
};

Value to_value(Budget& budget, const OrderedJson& json) {
  switch (json.type()) {
    case OrderedJson::value_t::boolean:
      return json.get<bool>();
    case OrderedJson::value_t::number_unsigned:
      if (json.get<std::uint64_t>() > INT64_MAX)
        throw jinja::TemplateError("found a whole number of more than 64 bits in the input");
      return json.get<std::int64_t>();
    case OrderedJson::value_t::number_integer:
      return json.get<std::int64_t>();
    case OrderedJson::value_t::number_float:
      return json.get<double>();
    case OrderedJson::value_t::string:
      return make_string(budget, json.get<std::string>());
    case OrderedJson::value_t::array: {
      jinja::Values items;
      for (const OrderedJson& item : json) items.push_back(to_value(budget, item));
      return make_sequence(budget, jinja::Sequence::Kind::list, std::move(items));
    }
    case OrderedJson::value_t::object: {
      Entries entries;
      for (const auto& [key, member] : json.items()) entries.emplace_back(make_string(budget, key), to_value(budget, member));
      return make_dict(budget, std::move(entries));
    }
    default:
      return {};
  }
}

// Null members are left out: templates know how to do without a member, not what to do with null. What the model thought is
// there as `reasoning_content` and as `thinking`, whatever name it came under.
OrderedJson prepare_message(const OrderedJson& message) {
  OrderedJson prepared = OrderedJson::object();
  const OrderedJson* reasoning = nullptr;
  for (const char* name : {"reasoning_content", "thinking", "reasoning"}) {
    const auto found = message.find(name);
    if (!reasoning && found != message.end() && !found->is_null()) reasoning = &*found;
  }
  if (reasoning) prepared["thinking"] = *reasoning;
  for (const auto& [key, member] : message.items()) {
    if (!member.is_null()) prepared[key] = member;
  }
  if (reasoning) prepared["reasoning_content"] = *reasoning;
  return prepared;
}

OrderedJson prepare_messages(const OrderedJson& messages) {
  require(messages.is_array(), "messages: found ", messages.type_name(), ", expected a list of messages");
  require(!messages.empty(), "messages: found none, expected at least one");
  OrderedJson prepared = OrderedJson::array();
  for (const OrderedJson& message : messages) {
    require(message.is_object(), "messages[", prepared.size(), "]: found ", message.type_name(),
            ", expected {\"role\": …, \"content\": …}");
    prepared.push_back(prepare_message(message));
  }
  return prepared;
}

}  // namespace chat_template

using namespace chat_template;

struct ChatTemplate::Parts {
  std::map<std::string, Program> programs;                          // by name; one alone is "default"
  std::vector<std::pair<std::string, std::string>> special_tokens;  // name and text

  void add(const std::string& name, std::string_view text, const std::string& place) { programs.try_emplace(name, text, place); }
  void add_files(const fs::path& folder);
  void add_config(const Json& config, const std::string& place);
  const Program& choose(bool has_tools) const;
};

void ChatTemplate::Parts::add_files(const fs::path& folder) {
  const fs::path file = folder / "chat_template.jinja", others = folder / "additional_chat_templates";
  if (fs::exists(file)) add("default", read_file(file), file.string());
  if (!fs::is_directory(others)) return;
  for (const auto& entry : fs::directory_iterator(others)) {
    if (entry.path().extension() == ".jinja") add(entry.path().stem().string(), read_file(entry.path()), entry.path().string());
  }
}

void ChatTemplate::Parts::add_config(const Json& config, const std::string& place) {
  const auto found = config.find("chat_template");
  if (found == config.end() || found->is_null()) return;
  const std::string key = place + ": chat_template";
  if (found->is_string()) return add("default", found->get<std::string>(), key);
  require(found->is_array(), key, ": found ", found->type_name(), ", expected text or a list of {\"name\": …, \"template\": …}");
  for (const Json& item : *found) {
    require(item.is_object(), key, ": found ", item.type_name(), " in the list, expected {\"name\": …, \"template\": …}");
    const auto name = get<std::string>(item, "name", key);
    add(name, get<std::string>(item, "template", key), concat(key, " \"", name, "\""));
  }
}

const Program& ChatTemplate::Parts::choose(bool has_tools) const {
  const auto with_tools = programs.find("tool_use");
  if (has_tools && with_tools != programs.end()) return with_tools->second;
  const auto found = programs.find("default");
  require(found != programs.end(), "chat template: found none named \"default\", expected one");
  return found->second;
}

std::optional<ChatTemplate> ChatTemplate::read(const fs::path& folder) {
  auto parts = std::make_unique<Parts>();
  parts->add_files(folder);
  const fs::path path = folder / "tokenizer_config.json";
  if (fs::exists(path)) {
    const Json config = read_json(path);
    require(config.is_object(), path.string(), ": found ", config.type_name(), ", expected an object");
    if (parts->programs.empty()) parts->add_config(config, path.string());
  }
  if (parts->programs.empty()) return std::nullopt;
  parts->special_tokens = text::read_token_settings(folder).named;
  return ChatTemplate(std::move(parts));
}

ChatTemplate ChatTemplate::parse(std::string_view text, const std::string& place) {
  auto parts = std::make_unique<Parts>();
  parts->add("default", text, place);
  return ChatTemplate(std::move(parts));
}

ChatTemplate::ChatTemplate(std::unique_ptr<const Parts> parts) : parts_(std::move(parts)) {}
ChatTemplate::~ChatTemplate() = default;
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;

RenderedChat ChatTemplate::render(const ChatInput& input, const ChatLimits& limits) const {
  return render(input, limits, std::time(nullptr));
}

RenderedChat ChatTemplate::render(const ChatInput& input, const ChatLimits& limits, std::time_t now) const {
  const OrderedJson messages = prepare_messages(input.messages);
  const Program& program = parts_->choose(input.tools && !input.tools->is_null());
  Budget budget(limits.steps, limits.bytes);
  std::size_t place = 0;
  try {
    Entries entries;
    for (const auto& [name, token] : parts_->special_tokens) entries.emplace_back(name, token);
    if (input.variables) {
      require(input.variables->is_object(), "variables of the chat template: found ", input.variables->type_name(),
              ", expected an object");
      for (const auto& [name, value] : input.variables->items()) entries.emplace_back(name, to_value(budget, value));
    }
    entries.emplace_back("messages", to_value(budget, messages));
    entries.emplace_back("tools", input.tools ? to_value(budget, *input.tools) : Value());
    entries.emplace_back("documents", input.documents ? to_value(budget, *input.documents) : Value());
    entries.emplace_back("add_generation_prompt", input.add_generation_prompt);
    const Value variables = make_dict(budget, std::move(entries));
    jinja::Evaluator evaluator(*variables.dict(), budget, now);
    try {
      std::string text = evaluator.run(program.body);
      return {std::move(text), evaluator.generated()};
    } catch (const jinja::TemplateError&) {
      place = evaluator.place();
      throw;
    }
  } catch (const jinja::TemplateError& error) {
    fail(program.source.place(place), ": ", error.what());
  }
}

}  // namespace molt
