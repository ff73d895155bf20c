#include "evaluate/traces.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "base/error.h"
#include "base/json.h"
#include "base/trim.h"
#include "evaluate/answer/answer.h"

namespace molt {
namespace tracing {

std::string without_extra_space(const std::string& text) {
  std::string result;
  bool space = false;
  for (const char c : text) {
    const bool blank = c == ' ' || c == '\t' || c == '\n' || c == '\r';
    if (!blank) {
      if (space && !result.empty()) result += ' ';
      result += c;
    }
    space = blank;
  }
  return result;
}

// A completion as the assistant's message: its thinking apart.
OrderedJson assistant(const std::string& completion) {
  constexpr std::string_view open = "<think>", close = "</think>";
  OrderedJson message{{"role", "assistant"}, {"content", trimmed(strip_thinking(completion))}};
  const auto end = completion.rfind(close);
  if (end == std::string::npos) return message;
  std::string thought = completion.substr(0, end);
  const auto begin = thought.find(open);
  if (begin != std::string::npos) thought.erase(0, begin + open.size());
  message["reasoning_content"] = trimmed(thought);
  return message;
}

OrderedJson trace(const TaskItem& item, const OrderedJson& sample, std::int64_t number) {
  OrderedJson line{{"id", item.id}, {"sample", number}};
  if (item.messages.empty()) {
    line["prompt"] = sample.at("prompt");
    line["completion"] = sample.at("completion");
  } else {
    line["messages"] = OrderedJson::array();
    for (const ChatMessage& message : item.messages)
      line["messages"].push_back({{"role", message.role}, {"content", message.content}});
    line["messages"].push_back(assistant(sample.at("completion").get<std::string>()));
  }
  line["answer"] = item.expected;
  return line;
}

}  // namespace tracing

TraceCounts write_traces(const Task& task, const fs::path& samples, const fs::path& output) {
  std::map<std::pair<std::string, std::int64_t>, OrderedJson> right;
  std::map<std::string, const TaskItem*> items;
  for (const TaskItem& item : task.items()) items.emplace(item.id, &item);
  TraceCounts counts{.items = std::ssize(task.items())};
  LineReader reader(samples);
  for (std::string_view text; reader.next(text);) {
    const Json known = parse_json(text, reader.place());
    const auto id = get<std::string>(known, "id", reader.place());
    const auto number = get_or<std::int64_t>(known, "sample", 0, reader.place());
    if (!items.count(id) || number >= task.config().samples) continue;
    ++counts.samples;
    if (!get<bool>(known, "correct", reader.place()))
      ++counts.wrong;
    else if (get<std::string>(known, "finish_reason", reader.place()) == "length")
      ++counts.unfinished;
    else
      right.emplace(std::pair(id, number), parse_ordered_json(text, reader.place()));
  }
  AtomicFile file(output);
  for (const TaskItem& item : task.items()) {
    std::set<std::string> seen;
    for (auto it = right.lower_bound({item.id, 0}); it != right.end() && it->first.first == item.id; ++it) {
      if (!seen.insert(tracing::without_extra_space(it->second.at("completion").get<std::string>())).second) {
        ++counts.repeated;
        continue;
      }
      file.write(to_line(tracing::trace(item, it->second, it->first.second)) + "\n");
      ++counts.kept;
    }
    counts.solved += !seen.empty();
  }
  file.commit();
  return counts;
}

}  // namespace molt
