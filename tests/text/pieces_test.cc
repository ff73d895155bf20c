#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "support/error_of.h"
#include "text/normalizer.h"
#include "text/pre_tokenizer.h"
#include "text/unicode.h"

namespace molt::text {
namespace pieces_test {

using Strings = std::vector<std::string>;

Strings cut(const std::string& json, const std::string& text) {
  Pieces pieces{text, {{0, text.size()}}};
  make_pre_tokenizer(Json::parse(json), "test.json")->apply(pieces);
  Strings out;
  for (const auto range : pieces.ranges) out.emplace_back(pieces.view(range));
  return out;
}

std::string normalize(const std::string& json, std::string text) {
  make_normalizer(Json::parse(json), "test.json")->apply(text);
  return text;
}

std::string error_of(const std::string& json) {
  return molt::error_of([&] { make_pre_tokenizer(Json::parse(json), "test.json"); });
}

std::string regex_split(const std::string& pattern) {
  return Json({{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}, {"invert", false}}).dump();
}

Strings split(const std::string& behavior, bool invert = false) {
  return cut(
      R"({"type":"Split","pattern":{"String":"-"},"behavior":")" + behavior + R"(","invert":)" + (invert ? "true}" : "false}"),
      "the-final--countdown");
}

TEST(Split, KeepsWhatItsBehaviorSays) {
  EXPECT_EQ(split("Removed"), (Strings{"the", "final", "countdown"}));
  EXPECT_EQ(split("Isolated"), (Strings{"the", "-", "final", "-", "-", "countdown"}));
  EXPECT_EQ(split("MergedWithPrevious"), (Strings{"the-", "final-", "-", "countdown"}));
  EXPECT_EQ(split("MergedWithNext"), (Strings{"the", "-final", "-", "-countdown"}));
  EXPECT_EQ(split("Contiguous"), (Strings{"the", "-", "final", "--", "countdown"}));
  EXPECT_EQ(split("Removed", true), (Strings{"-", "-", "-"}));
}

TEST(Split, CutsAtEmptyMatches) {
  const auto at = [](const std::string& pattern, const std::string& text) { return cut(regex_split(pattern), text); };
  EXPECT_EQ(at("", "aé"), (Strings{"a", "é"}));
  EXPECT_EQ(at("b*", "abbc"), (Strings{"a", "bb", "c"}));
  EXPECT_EQ(at("$", "a\nb"), (Strings{"a", "\nb"}));
}

TEST(ByteLevel, SplitsWordsAndSpellsBytes) {
  EXPECT_EQ(cut(R"({"type":"ByteLevel","add_prefix_space":false})", "it's 12  été\n"),
            (Strings{"it", "'s", "Ġ12", "Ġ", "ĠÃ©tÃ©", "Ċ"}));
  EXPECT_EQ(cut(R"({"type":"ByteLevel","add_prefix_space":true,"use_regex":false})", "a b"), (Strings{"ĠaĠb"}));
}

TEST(Metaspace, PrependsByItsScheme) {
  const auto at = [](const std::string& options) { return R"({"type":"Metaspace","replacement":"▁",)" + options + "}"; };
  EXPECT_EQ(cut(at(R"("prepend_scheme":"always")"), "a  b"), (Strings{"▁a", "▁", "▁b"}));
  EXPECT_EQ(cut(at(R"("prepend_scheme":"always")"), " a"), (Strings{"▁a"}));
  EXPECT_EQ(cut(at(R"("prepend_scheme":"never","split":false)"), "a b"), (Strings{"a▁b"}));
  EXPECT_EQ(cut(at(R"("add_prefix_space":false)"), "a b"), (Strings{"a", "▁b"}));
  const std::string two =
      R"({"type":"Sequence","pretokenizers":[{"type":"WhitespaceSplit"},)" + at(R"("prepend_scheme":"first")") + "]}";
  EXPECT_EQ(cut(two, "a b"), (Strings{"▁a", "b"}));
  EXPECT_EQ(cut(two, " a b"), (Strings{"a", "b"}));
}

TEST(PreTokenizers, KnowTheirCharacters) {
  EXPECT_EQ(cut(R"({"type":"Whitespace"})", "tom's 3½ é\u0301t_a!?"), (Strings{"tom", "'", "s", "3", "½", "é\u0301t_a", "!?"}));
  EXPECT_EQ(cut(R"({"type":"WhitespaceSplit"})", "a\u00a0b\u2003 c\u200bd"), (Strings{"a", "b", "c\u200bd"}));
  EXPECT_EQ(cut(R"({"type":"Digits","individual_digits":true})", "a12½b"), (Strings{"a", "1", "2", "½", "b"}));
  EXPECT_EQ(cut(R"({"type":"Digits"})", "a12½b"), (Strings{"a", "12½", "b"}));
  EXPECT_EQ(cut(R"({"type":"Punctuation"})", "a,b—c$"), (Strings{"a", ",", "b", "—", "c", "$"}));
}

TEST(Regex, MeansWhatOnigurumaMeans) {
  const auto at = [](const std::string& pattern, const std::string& text) { return cut(regex_split(pattern), text); };
  // U+180E is no space, a combining mark is part of a word, m lets the dot match a newline.
  EXPECT_EQ(at(R"(\s+)", "a\u180eb\u0085c"), (Strings{"a\u180eb", "\u0085", "c"}));
  EXPECT_EQ(at(R"(\w+)", "a\u0301-b"), (Strings{"a\u0301", "-", "b"}));
  EXPECT_EQ(at(R"([^\s\w]+)", "a\u0301-+b"), (Strings{"a\u0301", "-+", "b"}));
  EXPECT_EQ(at(R"((?m:a.b))", "xa\nb"), (Strings{"x", "a\nb"}));
  EXPECT_EQ(at(R"(\u0061+)", "baa"), (Strings{"b", "aa"}));
  EXPECT_EQ(at(R"([\]a]+)", "x]a"), (Strings{"x", "]a"}));
}

TEST(Regex, RefusesInOneLine) {
  EXPECT_NE(error_of(regex_split("(a")).find("test.json: pattern: cannot read the pattern \"(a\" at 2"), std::string::npos);
  EXPECT_NE(error_of(regex_split("[a-z&&[^b]]")).find("set inside a set"), std::string::npos);
  EXPECT_NE(error_of(regex_split("[[:alpha]")).find("without :]"), std::string::npos);
  EXPECT_NE(error_of(regex_split("\\")).find("cannot read"), std::string::npos);
  EXPECT_NE(error_of(regex_split(std::string(100'000, 'a'))).find("expected at most"), std::string::npos);
  EXPECT_THROW(cut(regex_split("(a+)+$"), std::string(40, 'a') + "b"), UserError);
}

TEST(Normalizers, GiveTheFormsOfUnicode) {
  const std::string composed = "\u00e9", decomposed = "e\u0301";
  EXPECT_EQ(normalize(R"({"type":"NFC"})", decomposed), composed);
  EXPECT_EQ(normalize(R"({"type":"NFD"})", composed), decomposed);
  EXPECT_EQ(normalize(R"({"type":"NFKC"})", "\ufb01\u00b2" + decomposed), "fi2" + composed);
  EXPECT_EQ(normalize(R"({"type":"NFKD"})", "\ufb01" + composed), "fi" + decomposed);
  EXPECT_EQ(normalize(R"({"type":"NFC"})", std::string("\0a\u0301", 4)), std::string("\0\u00e1", 3));
}

TEST(Normalizers, ChangeWhatTheySay) {
  EXPECT_EQ(normalize(R"({"type":"Lowercase"})", "ÀΣİßa"), "àσi\u0307ßa");
  EXPECT_EQ(normalize(R"({"type":"Strip","strip_left":true,"strip_right":true})", " \u3000a b\n"), "a b");
  EXPECT_EQ(normalize(R"({"type":"Strip","strip_left":false,"strip_right":true})", " a "), " a");
  EXPECT_EQ(normalize(R"({"type":"Strip","strip_left":true,"strip_right":true})", " \t "), "");
  EXPECT_EQ(normalize(R"({"type":"Prepend","prepend":"▁"})", ""), "");
  EXPECT_EQ(normalize(R"({"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"▁"},
                       {"type":"Replace","pattern":{"String":" "},"content":"▁"}]})",
                      "a b"),
            "▁a▁b");
  EXPECT_EQ(normalize(R"({"type":"Replace","pattern":{"Regex":" {2,}"},"content":" "})", "a   b c"), "a b c");
}

TEST(Components, NameAnUnknownType) {
  EXPECT_EQ(
      error_of(R"({"type":"Sequence","pretokenizers":[{"type":"Whitespace"},{"type":"Magic"}]})"),
      "test.json: pretokenizers[1]: type: found \"Magic\", expected one of ByteLevel, Split, Digits, Metaspace, Whitespace, "
      "WhitespaceSplit, Punctuation, Sequence");
  EXPECT_EQ(error_of("[]"), "test.json: found array, expected an object");
  EXPECT_EQ(error_of("{}"), "test.json: type: missing");
  EXPECT_EQ(error_of(R"({"type":"Sequence","pretokenizers":{}})"), "test.json: pretokenizers: found object, expected a list");
}

TEST(Utf8, ReplacesTheLongestBrokenBeginnings) {
  const auto repaired = [](const std::string& bytes) {
    std::string all, piecewise;
    Utf8Repair repair;
    repair.push(bytes, all);
    repair.finish(all);
    for (const char byte : bytes) repair.push({&byte, 1}, piecewise);
    repair.finish(piecewise);
    EXPECT_EQ(all, piecewise);
    EXPECT_EQ(is_valid_utf8(bytes), all == bytes);
    return all;
  };
  const std::string sign = "\uFFFD";
  EXPECT_EQ(repaired("a\xF0\x9F\x98\x80é"), "a\U0001F600é");
  EXPECT_EQ(repaired("\xF0\x9F\x98"), sign);
  EXPECT_EQ(repaired("\xF0\x9F\x41"), sign + "A");
  EXPECT_EQ(repaired("\xE0\x80\x80"), sign + sign + sign);  // overlong
  EXPECT_EQ(repaired("\xED\xA0\x80"), sign + sign + sign);  // a surrogate
  EXPECT_EQ(repaired("\xC0\xAF\xFF"), sign + sign + sign);
  EXPECT_EQ(repaired("\xF4\x90\x80\x80"), sign + sign + sign + sign);  // beyond U+10FFFF
}

}  // namespace pieces_test
}  // namespace molt::text
