#include "data/line_sample.h"

#include <nlohmann/json.hpp>

#include "base/counted.h"
#include "base/error.h"
#include "base/json.h"
#include "data/sample_stream.h"

namespace molt {

LineSampler::LineSampler(const PrepareConfig& config)
    : config_(config),
      learning_{config.learn_roles, config.learn_reasoning},
      tokenizer_(Tokenizer::load(config.tokenizer)),
      template_(fs::is_directory(config.tokenizer) ? ChatTemplate::read(config.tokenizer) : std::nullopt) {}

PackedBatch::Sample LineSampler::sample(std::string_view line, const std::string& place) const {
  const Json object = parse_json(line, place);
  require(object.is_object(), place, ": found no object, expected {\"", config_.text, "\": …}, {\"", config_.prompt, "\": …, \"",
          config_.completion, "\": …}, {\"", config_.messages, "\": […]} or {\"", config_.tokens, "\": […]}");
  if (object.contains(config_.text)) return text_sample(*tokenizer_, get<std::string>(object, config_.text, place));
  if (object.contains(config_.prompt)) {
    return completion_sample(*tokenizer_, get<std::string>(object, config_.prompt, place),
                             get<std::string>(object, config_.completion, place));
  }
  if (object.contains(config_.messages)) return conversation(line, place);
  require(object.contains(config_.tokens), place, ": found none of \"", config_.text, "\", \"", config_.prompt, "\", \"",
          config_.messages, "\" and \"", config_.tokens, "\"");
  return pretokenized(object, place);
}

PackedBatch::Sample LineSampler::pretokenized(const Json& object, const std::string& place) const {
  PackedBatch::Sample sample;
  for (const std::int64_t token : get<std::vector<std::int64_t>>(object, config_.tokens, place)) {
    require(token >= 0 && token < tokenizer_->vocabulary(), place, ": ", config_.tokens, ": found ", token,
            ", expected ids from 0 to ", tokenizer_->vocabulary() - 1);
    sample.tokens.push_back(static_cast<std::int32_t>(token));
  }
  if (!object.contains(config_.learn)) return sample;
  const auto learn = get<std::vector<std::int64_t>>(object, config_.learn, place);
  require(learn.size() == sample.tokens.size(), place, ": ", config_.learn, ": found ", counted(std::ssize(learn), "value"),
          ", expected ", sample.tokens.size(), ", one a token");
  for (const std::int64_t value : learn) {
    require(value == 0 || value == 1, place, ": ", config_.learn, ": found ", value, ", expected 0 or 1");
    sample.weights.push_back(static_cast<float>(value));
  }
  return sample;
}

PackedBatch::Sample LineSampler::conversation(std::string_view line, const std::string& place) const {
  require(template_.has_value(), place, ": found \"", config_.messages, "\", but ", config_.tokenizer,
          " has no chat template to lay them out by");
  const OrderedJson object = parse_ordered_json(line, place);  // templates write tool calls in the order they came in
  const OrderedJson& messages = object.at(config_.messages);
  const auto tools = object.find("tools");
  try {
    return chat_sample(*tokenizer_, *template_, messages, tools != object.end() && !tools->is_null() ? &*tools : nullptr,
                       learning_, place);
  } catch (const UserError& error) {
    const std::string what = error.what();  // the template's own errors name its line
    fail(what.starts_with(place) ? what : concat(place, ": ", what));
  }
}

}  // namespace molt
