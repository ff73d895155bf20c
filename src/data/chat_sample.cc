#include "data/chat_sample.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/error.h"
#include "base/trim.h"

namespace molt {

namespace chat_samples {

struct Range {
  std::size_t begin, end;
};

std::string text_member(const OrderedJson& message, const char* key) {
  const auto found = message.find(key);
  return found != message.end() && found->is_string() ? found->get<std::string>() : "";
}

class Layout {
 public:
  Layout(const ChatTemplate& chat_template, const RenderedChat& whole, const OrderedJson& messages, const OrderedJson* tools,
         const std::string& place)
      : template_(chat_template), text_(whole.text), messages_(messages), tools_(tools), place_(place) {
    std::vector<std::size_t> answers;
    for (std::size_t i = 0; i < messages.size(); ++i) {
      if (text_member(messages[i], "role") == "assistant") answers.push_back(i);
    }
    if (answers.size() != whole.generated.size()) return;
    for (std::size_t i = 0; i < answers.size(); ++i) marks_[answers[i]] = {whole.generated[i].first, whole.generated[i].second};
  }

  // Where message i stands, without what announces it; by the template's own marks if `by_marks` and it has them.
  Range message(std::size_t i, bool by_marks) const {
    if (const auto mark = marks_.find(i); by_marks && mark != marks_.end()) return mark->second;
    const bool answers = text_member(messages_[i], "role") == "assistant";
    const std::string before = i == 0 ? "" : first(i, answers), up_to = first(i + 1, false);
    require(text_.starts_with(before), place_, ": messages[", i, "]: the template lays the messages before it out otherwise ",
            "when more follow, expected the same text");
    if (text_.starts_with(up_to)) return {before.size(), up_to.size()};
    // Templates that drop what was thought in earlier turns: what closes the turn stands behind the same content.
    const std::string content = trimmed(text_member(messages_[i], "content"));
    const std::size_t in_part = content.empty() ? std::string::npos : up_to.rfind(content);
    const std::size_t in_text = content.empty() ? std::string::npos : text_.find(content, before.size());
    const bool found = in_part != std::string::npos && in_text != std::string::npos;
    const std::string closing = found ? up_to.substr(in_part + content.size()) : "";
    require(found && text_.compare(in_text + content.size(), closing.size(), closing) == 0, place_, ": messages[", i,
            "]: found no place in the template's text that is this message's alone");
    return {before.size(), in_text + content.size() + closing.size()};
  }

  // What message i thinks, inside its range.
  std::optional<Range> reasoning(std::size_t i, Range range) const {
    constexpr std::string_view open = "<think>", close = "</think>";
    const std::string_view inside = std::string_view(text_).substr(range.begin, range.end - range.begin);
    const std::size_t closed = inside.find(close);
    if (closed != std::string_view::npos) {
      const std::size_t opened = inside.find(open);  // or the template has opened it before the answer
      return Range{range.begin + (opened < closed ? opened : 0), range.begin + closed + close.size()};
    }
    for (const char* key : {"reasoning_content", "thinking", "reasoning"}) {
      const std::string thought = trimmed(text_member(messages_[i], key));
      const std::size_t at = thought.empty() ? std::string_view::npos : inside.find(thought);
      if (at != std::string_view::npos) return Range{range.begin + at, range.begin + at + thought.size()};
    }
    return std::nullopt;
  }

 private:
  std::string first(std::size_t count, bool ask) const {
    const OrderedJson part(messages_.begin(), messages_.begin() + static_cast<std::ptrdiff_t>(count));
    return template_.render({.messages = part, .tools = tools_, .add_generation_prompt = ask}).text;
  }

  const ChatTemplate& template_;
  const std::string& text_;
  const OrderedJson& messages_;
  const OrderedJson* tools_;
  const std::string& place_;
  std::map<std::size_t, Range> marks_;  // by message
};

}  // namespace chat_samples

std::vector<ChatSpan> chat_spans(const ChatTemplate& chat_template, const RenderedChat& whole, const OrderedJson& messages,
                                 const OrderedJson* tools, const ChatLearning& learning, const std::string& place) {
  using chat_samples::Range;
  const chat_samples::Layout layout(chat_template, whole, messages, tools, place);
  const bool answers_alone = learning.roles == std::vector<std::string>{"assistant"};
  std::vector<Range> learned;
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const std::string role = chat_samples::text_member(messages[i], "role");
    if (std::find(learning.roles.begin(), learning.roles.end(), role) == learning.roles.end()) continue;
    const Range range = layout.message(i, answers_alone);
    const auto thought = learning.reasoning ? std::nullopt : layout.reasoning(i, range);
    if (thought) learned.push_back({range.begin, thought->begin});
    learned.push_back({thought ? thought->end : range.begin, range.end});
  }
  require(!learned.empty(), place, ": found no message to learn from, expected one of a role in learn_roles");
  std::vector<ChatSpan> spans;
  std::size_t done = 0;
  for (const Range& range : learned) {
    require(range.begin >= done, place, ": messages: the template lays them out in another order, expected their own");
    if (range.begin > done) spans.push_back({done, range.begin, false});
    if (range.end > range.begin) spans.push_back({range.begin, range.end, true});
    done = range.end;
  }
  if (done < whole.text.size()) spans.push_back({done, whole.text.size(), false});
  return spans;
}

PackedBatch::Sample chat_sample(const Tokenizer& tokenizer, const ChatTemplate& chat_template, const OrderedJson& messages,
                                const OrderedJson* tools, const ChatLearning& learning, const std::string& place) {
  const RenderedChat whole = chat_template.render({.messages = messages, .tools = tools});
  PackedBatch::Sample sample;
  for (const ChatSpan& span : chat_spans(chat_template, whole, messages, tools, learning, place)) {
    const std::string_view part = std::string_view(whole.text).substr(span.begin, span.end - span.begin);
    const std::vector<std::int32_t> tokens = tokenizer.encode(part, /*add_special_tokens=*/false);
    sample.tokens.insert(sample.tokens.end(), tokens.begin(), tokens.end());
    sample.weights.resize(sample.tokens.size(), span.learn ? 1.0f : 0.0f);
  }
  return sample;
}

}  // namespace molt
