#include "data/chat_sample.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/files.h"
#include "base/json.h"
#include "support/error_of.h"

namespace molt {
namespace {

ChatTemplate shipped(const std::string& name) {
  const fs::path path = fs::path(MOLT_SOURCE) / "tests/text/chat_templates" / (name + ".jinja");
  return ChatTemplate::parse(read_file(path), name);
}

// The text with what is learned in brackets.
std::string marked(const ChatTemplate& chat_template, const char* conversation, const ChatLearning& learning = {}) {
  const OrderedJson messages = parse_ordered_json(conversation, "test");
  const RenderedChat whole = chat_template.render({.messages = messages});
  const std::string& text = whole.text;
  std::string result;
  std::size_t done = 0;
  for (const ChatSpan& span : chat_spans(chat_template, whole, messages, nullptr, learning, "test")) {
    EXPECT_EQ(span.begin, done);
    done = span.end;
    const std::string part = text.substr(span.begin, span.end - span.begin);
    result += span.learn ? "[" + part + "]" : part;
  }
  EXPECT_EQ(done, text.size());
  return result;
}

constexpr const char* kTwoTurns = R"([{"role": "system", "content": "S"}, {"role": "user", "content": "U1"},
  {"role": "assistant", "content": "A1"}, {"role": "user", "content": "U2"}, {"role": "assistant", "content": "A2"}])";

TEST(ChatSample, LearnsTheAnswersAndWhatClosesThem) {
  EXPECT_EQ(marked(shipped("qwen25"), kTwoTurns),
            "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU1<|im_end|>\n<|im_start|>assistant\n[A1<|im_end|>\n]"
            "<|im_start|>user\nU2<|im_end|>\n<|im_start|>assistant\n[A2<|im_end|>\n]");
}

TEST(ChatSample, TheTemplatesOwnMarksDecide) {
  EXPECT_EQ(marked(shipped("chatml"), kTwoTurns),
            "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU1<|im_end|>\n<|im_start|>assistant\n[A1<|im_end|>]\n"
            "<|im_start|>user\nU2<|im_end|>\n<|im_start|>assistant\n[A2<|im_end|>]\n");
}

TEST(ChatSample, LearnsFromChosenRoles) {
  ChatLearning learning;
  learning.roles = {"user"};
  EXPECT_EQ(marked(shipped("chatml"), kTwoTurns, learning),
            "<|im_start|>system\nS<|im_end|>\n[<|im_start|>user\nU1<|im_end|>\n]<|im_start|>assistant\nA1<|im_end|>\n"
            "[<|im_start|>user\nU2<|im_end|>\n]<|im_start|>assistant\nA2<|im_end|>\n");
  learning.roles = {"tool"};
  EXPECT_EQ(error_of([&] { marked(shipped("chatml"), kTwoTurns, learning); }),
            "test: found no message to learn from, expected one of a role in learn_roles");
}

constexpr const char* kThoughts = R"([{"role": "user", "content": "U1"},
  {"role": "assistant", "reasoning_content": "R1", "content": "A1"}, {"role": "user", "content": "U2"},
  {"role": "assistant", "reasoning_content": "R2", "content": "A2"}])";

// The template drops the thoughts of earlier turns.
TEST(ChatSample, ReasoningIsLearnedOrRead) {
  const std::string first =
      "<|im_start|>user\nU1<|im_end|>\n<|im_start|>assistant\n[A1<|im_end|>\n]"
      "<|im_start|>user\nU2<|im_end|>\n<|im_start|>assistant\n";
  EXPECT_EQ(marked(shipped("qwen3"), kThoughts), first + "[<think>\nR2\n</think>\n\nA2<|im_end|>\n]");
  ChatLearning answers_alone;
  answers_alone.reasoning = false;
  EXPECT_EQ(marked(shipped("qwen3"), kThoughts, answers_alone), first + "<think>\nR2\n</think>[\n\nA2<|im_end|>\n]");
}

TEST(ChatSample, ATemplateWhoseTurnsCannotBeToldApartIsAnError) {
  const ChatTemplate backwards = ChatTemplate::parse("{% for m in messages|reverse %}{{ m.content }};{% endfor %}", "backwards");
  const std::string error = error_of([&] { marked(backwards, kTwoTurns); });
  EXPECT_TRUE(error.starts_with("test: messages[2]: the template lays the messages before it out otherwise")) << error;
}

}  // namespace
}  // namespace molt
