// Corners of the engine, its errors with their places, and its bounds. What transformers gives is compared in
// test_chat_template.py.
#include "text/chat_template.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "support/error_of.h"
#include "support/temporary_folder.h"

namespace molt {
namespace chat_template_test {

const OrderedJson kMessages = {{{"role", "user"}, {"content", "Hi"}}, {{"role", "assistant"}, {"content", "Hello"}}};

RenderedChat render(const std::string& text, const ChatLimits& limits = {}) {
  return ChatTemplate::parse(text, "t").render({.messages = kMessages}, limits);
}

std::string error(const std::string& text, const ChatLimits& limits = {}) {
  return error_of([&] { render(text, limits); });
}

std::string repeat(const std::string& text, int count) {
  std::string out;
  for (int i = 0; i < count; ++i) out += text;
  return out;
}

TEST(ChatTemplate, RendersMessages) {
  const auto chat = render("{% for m in messages %}<{{ m.role }}>{{ m['content'] }}\n{% endfor %}");
  EXPECT_EQ(chat.text, "<user>Hi\n<assistant>Hello\n");
  EXPECT_TRUE(chat.generated.empty());
}

TEST(ChatTemplate, SaysWhatTheAssistantWroteInBytes) {
  const auto chat = render("é{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %};{% endfor %}");
  EXPECT_EQ(chat.text, "éHi;Hello;");
  EXPECT_EQ(chat.generated, (std::vector<std::pair<std::size_t, std::size_t>>{{2, 4}, {5, 10}}));
}

TEST(ChatTemplate, TellsTheTime) {
  const auto chat = ChatTemplate::parse("{{ strftime_now('%Y') }}", "t").render({.messages = kMessages}, {}, 1'600'000'000);
  EXPECT_EQ(chat.text, "2020");
}

TEST(ChatTemplate, ErrorsNameLineAndColumn) {
  EXPECT_EQ(error("a\n  {{ 1 + }}"), "t:2:10: found }}, expected an expression");
  EXPECT_EQ(error("é {% if x %}"), "t:1:13: found the end of the template, expected {% endif %}");
  EXPECT_EQ(error("{% endfor %}"),
            "t:1:4: found the tag endfor, expected one of if, for, set, macro, call, filter, with, print, generation, break, "
            "continue, raw");
  EXPECT_EQ(error("{% break %}"), "t:1:4: found break outside of a loop");
  EXPECT_EQ(error("{% for x in y %}{% macro m() %}{% continue %}{% endmacro %}{% endfor %}"),
            "t:1:35: found continue outside of a loop");
  EXPECT_EQ(error("{{ (1] }}"), "t:1:6: found \"]\", expected \")\"");
  EXPECT_EQ(error("{{ 'a }}"), "t:1:4: found text without a closing quote");
  EXPECT_EQ(error("{{ a"), "t:1:1: found a tag without end, expected }}");
  EXPECT_EQ(error("x{# a"), "t:1:2: found a comment without end, expected #}");
  EXPECT_EQ(error("{% raw %}"), "t:1:1: found a raw block without end, expected {% endraw %}");
  EXPECT_EQ(error("{{ a ? b }}"), "t:1:6: found \"?\", expected an expression");
  EXPECT_EQ(error("{{ 99999999999999999999 }}"), "t:1:4: found 99999999999999999999, expected a whole number below 2^63");
  EXPECT_EQ(error("{{ '\\ud800' }}"), "t:1:5: found an escape that names no character");
  EXPECT_EQ(error("{% for x in y recursive %}{% endfor %}"),
            "t:1:15: found recursive, expected a loop that is not recursive (use a macro)");
  EXPECT_EQ(error("{{ messages\n | tojsn }}"), "t:2:4: found the filter tojsn, which is not supported");
  EXPECT_EQ(error("{{ 1 is odder }}"), "t:1:9: found the test odder, which is not supported");
  EXPECT_EQ(error("{{ 'a'.zfill(3) }}"), "t:1:8: found the method zfill of text, which is not supported");
  EXPECT_EQ(error("{{ x.y }}"), "t:1:6: 'x' is undefined");
  EXPECT_EQ(error("\n{{ raise_exception('roles must alternate') }}"),
            "t:2:19: the template refuses its input: roles must alternate");
  EXPECT_EQ(error("{{ 9223372036854775807 + 1 }}"), "t:1:24: found a result beyond whole numbers of 64 bits");
  EXPECT_EQ(error("\xFF"), "t: found bytes that are no UTF-8, expected text");
}

TEST(ChatTemplate, RefusesInputThatIsNone) {
  const auto chat = ChatTemplate::parse("x", "t");
  const auto error_for = [&](const OrderedJson& messages) { return error_of([&] { chat.render({.messages = messages}); }); };
  EXPECT_EQ(error_for(OrderedJson::array()), "messages: found none, expected at least one");
  EXPECT_EQ(error_for("text"), "messages: found string, expected a list of messages");
  EXPECT_EQ(error_for({1}), "messages[0]: found number, expected {\"role\": …, \"content\": …}");
}

TEST(ChatTemplate, ReadsFolders) {
  const TemporaryFolder folder;
  EXPECT_FALSE(ChatTemplate::read(folder.path()));
  write_file(folder.path() / "tokenizer_config.json", R"({"chat_template": 3})");
  EXPECT_EQ(error_of([&] { ChatTemplate::read(folder.path()); }),
            (folder.path() / "tokenizer_config.json").string() +
                ": chat_template: found number, expected text or a list of {\"name\": …, \"template\": …}");
  write_file(folder.path() / "tokenizer_config.json", R"({"chat_template": [{"name": "rag", "template": "x"}]})");
  EXPECT_EQ(error_of([&] { ChatTemplate::read(folder.path())->render({.messages = kMessages}); }),
            "chat template: found none named \"default\", expected one");
  write_file(folder.path() / "tokenizer_config.json",
             R"({"chat_template": "{{ eos_token }}", "eos_token": {"content": "</s>"}})");
  EXPECT_EQ(ChatTemplate::read(folder.path())->render({.messages = kMessages}).text, "</s>");
}

constexpr const char* kTooMany = "found a template that takes too many steps to evaluate";
constexpr const char* kTooMuch = "found a template that makes too much text or too long lists";

TEST(ChatTemplateBounds, NestingEnds) {
  const std::pair<const char*, const char*> brackets[] = {{"(", ")"},    {"[", "]"},     {"{'a': ", "}"},     {"f(", ")"},
                                                          {"a[", "]"},   {"not ", ""},   {"- ", ""},          {"x is eq (", ")"},
                                                          {"x|d(", ")"}, {"1 + (", ")"}, {"1 if 1 else ", ""}};
  for (const auto& [open, close] : brackets) {
    const std::string found = error("{{ " + repeat(open, 100000) + "1" + repeat(close, 100000) + " }}");
    EXPECT_NE(found.find("expected less than 150 levels of nesting"), std::string::npos) << open << ": " << found;
  }
  EXPECT_NE(error(repeat("{% if 1 %}", 100000)).find("150 levels"), std::string::npos);
  EXPECT_NE(error("{% set " + repeat("(", 100000) + repeat(")", 100000) + " %}").find("150 levels"), std::string::npos);
  EXPECT_EQ(error("{{ 0" + repeat(" + 1", 100000) + repeat("|abs", 100000) + " }}"), "");
}

TEST(ChatTemplateBounds, RecursionEnds) {
  EXPECT_NE(error("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}").find("nested too deep"), std::string::npos);
  EXPECT_NE(error("{% macro m(a=m()) %}{% endmacro %}{{ m() }}").find("nested too deep"), std::string::npos);
  EXPECT_NE(error("{% set n = namespace(l=[]) %}{% for i in range(9999) %}{% set n.l = [n.l] %}{% endfor %}")
                .find("nested deeper than 500"),
            std::string::npos);
  EXPECT_NE(error("{% set n = namespace() %}{% set n.n = [n] %}{{ n.n }}").find("found a namespace to print"), std::string::npos);
}

TEST(ChatTemplateBounds, WorkEnds) {
  const std::string loops = repeat("{% for i in range(1000) %}", 4) + repeat("{% endfor %}", 4);
  EXPECT_NE(error(loops).find(kTooMuch), std::string::npos);
  EXPECT_EQ(error("{% for i in range(999) %}{% set x = i %}{% endfor %}", {.steps = 1000, .bytes = 1 << 20}),
            std::string("t:1:37: ") + kTooMany);
  EXPECT_NE(
      error("{% set n = namespace(l=[]) %}{% for i in range(400) %}{% set n.l = [n.l, n.l] %}{% endfor %}{{ n.l == n.l + [] }}"
            "{% set m = namespace(l=[]) %}{% for i in range(400) %}{% set m.l = [m.l, m.l] %}{% endfor %}{{ m.l == n.l }}")
          .find(kTooMany),
      std::string::npos);
  EXPECT_NE(error("{% set n = namespace(l=[]) %}{% for i in range(400) %}{% set n.l = [n.l, n.l] %}{% endfor %}{{ n.l }}")
                .find(kTooMuch),
            std::string::npos);
}

TEST(ChatTemplateBounds, MemoryEnds) {
  for (const char* text :
       {"{{ 'ab' * 999999999999 }}", "{{ 9223372036854775807 * [1] }}", "{{ ('a' * 99999999) | replace('', 'b' * 99999) }}",
        "{{ (['a'] * 999999) | join('b' * 999999) }}", "{{ ('\n' * 999999) | indent(99999, blank=true) }}",
        "{{ ('a,' * 50000000).split(',') }}", "{{ ('a' * 100000000) | list }}",
        "{% set n = namespace(s='a') %}{% for i in range(99) %}{% set n.s = n.s + n.s %}{% endfor %}",
        "{% for i in range(100000) %}{{ 'a' * 100000 }}{% endfor %}", "{{ ([[1] * 99999] * 999) | tojson(indent=999) }}"}) {
    EXPECT_NE(error(text).find(kTooMuch), std::string::npos) << text << ": " << error(text);
  }
  EXPECT_EQ(error("{{ range(100001) }}"), "t:1:9: range: found more than 100000 numbers");
  EXPECT_EQ(error("{{ range(-9223372036854775807, 9223372036854775807) }}"), "t:1:9: range: found more than 100000 numbers");
  EXPECT_EQ(error("{{ '%99999999d' % 1 }}"), "t:1:17: format: found a number beyond 10000");
  EXPECT_EQ(error("{{ '{:99999999}'.format(1) }}"), "t:1:24: format: found a number beyond 10000");
  EXPECT_EQ(error("{{ messages }}", {.steps = 1000, .bytes = 100}), std::string("t:1:1: ") + kTooMuch);
}

}  // namespace chat_template_test
}  // namespace molt
