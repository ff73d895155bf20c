// A conversation as a sample: laid out by the model's chat template, learned from the messages of chosen roles.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "model/batch.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace molt {

struct ChatLearning {
  std::vector<std::string> roles = {"assistant"};
  bool reasoning = true;  // false: what a message thinks (<think> … </think>, reasoning_content) is read, not learned
};

// A part of a text, and whether it is learned from.
struct ChatSpan {
  std::size_t begin, end;  // bytes
  bool learn;
};

// The whole text of a conversation in parts, in order. Where the template marks what the assistant wrote ({% generation %}) and
// nothing else is learned, those marks decide. Otherwise a message begins where the template, given the messages before it (and
// asked for the assistant's answer, if it is one), ends; it ends where the template given the messages up to it ends, so what
// closes a turn is learned. UserError where the template lays the beginning of a conversation out otherwise than the whole and no
// part can be told, and when no message has a role that is learned.
std::vector<ChatSpan> chat_spans(const ChatTemplate& chat_template, const RenderedChat& whole, const OrderedJson& messages,
                                 const OrderedJson* tools, const ChatLearning& learning, const std::string& place);

// Parts are tokenized apart, as prompt and answer are in generation. `messages` and `tools` (null: none) as in ChatInput.
PackedBatch::Sample chat_sample(const Tokenizer& tokenizer, const ChatTemplate& chat_template, const OrderedJson& messages,
                                const OrderedJson* tools, const ChatLearning& learning, const std::string& place);

}  // namespace molt
