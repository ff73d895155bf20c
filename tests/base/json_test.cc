#include "base/json.h"

#include <nlohmann/json.hpp>

#include "support/error_of.h"
#include "support/temporary_folder.h"

namespace molt::json_test {

class JsonFiles : public FolderTest {};

std::string parse_error(const std::string& text, const std::string& place = "a.json") {
  return error_of([&] { parse_json(text, place); });
}

TEST(JsonParse, NamesLineColumnAndReason) {
  EXPECT_EQ(parse_error("{\"a\": [1,\n  2,,]}").find("a.json:2:5: "), 0u);
  EXPECT_EQ(parse_error("[1", "traces.jsonl:17"), "traces.jsonl:17:3: no valid JSON: unexpected end of input; expected ']'");
  EXPECT_EQ(parse_error("").find("a.json:1:1: no valid JSON: unexpected end of input"), 0u);
  EXPECT_NE(parse_error("{\"a\": NaN}"), "");
  EXPECT_NE(parse_error("[1e999]").find("number overflow"), std::string::npos);
  EXPECT_NE(parse_error("[\"\xff\"]").find("ill-formed UTF-8"), std::string::npos);
  EXPECT_LT(parse_error("\"" + std::string(100000, 'x')).size(), 200u);
  EXPECT_NE(parse_error("[] []"), "");
}

TEST(JsonParse, RefusesDeepNestingWithoutCrash) {
  const std::string million(1000000, '[');
  EXPECT_EQ(parse_error(million), "a.json:1:257: nested deeper than 256 levels");
  EXPECT_EQ(error_of([&] { parse_ordered_json(million, "a.json"); }), "a.json:1:257: nested deeper than 256 levels");
  EXPECT_EQ(parse_error(std::string(256, '[') + std::string(256, ']')), "");
  EXPECT_EQ(parse_error("\"" + std::string(1000, '[') + "\\\"" + std::string(1000, '{') + "\""), "");
}

TEST(JsonParse, TakesTheLastOfEqualKeysAndKeepsOrder) {
  EXPECT_EQ(get<std::int64_t>(parse_json("{\"a\": 1, \"a\": 2}", "x"), "a", "x"), 2);
  EXPECT_EQ(to_line(parse_ordered_json("{\"b\": 1, \"a\": 2}", "x")), "{\"b\":1,\"a\":2}");
}

TEST(JsonGet, ReadsEachType) {
  const Json object =
      parse_json(R"({"yes": true, "n": 7, "whole": 1e3, "x": 2, "s": "t", "ns": [1, 2], "xs": [1, 0.5], "ss": ["a"],
                                    "none": null})",
                 "x");
  EXPECT_TRUE(get<bool>(object, "yes", "x"));
  EXPECT_EQ(get<std::int64_t>(object, "n", "x"), 7);
  EXPECT_EQ(get<std::int64_t>(object, "whole", "x"), 1000);
  EXPECT_EQ(get<double>(object, "x", "x"), 2.0);
  EXPECT_EQ(get<std::string>(object, "s", "x"), "t");
  EXPECT_EQ(get<std::vector<std::int64_t>>(object, "ns", "x"), (std::vector<std::int64_t>{1, 2}));
  EXPECT_EQ(get<std::vector<double>>(object, "xs", "x"), (std::vector<double>{1, 0.5}));
  EXPECT_EQ(get<std::vector<std::string>>(object, "ss", "x"), (std::vector<std::string>{"a"}));
  EXPECT_EQ(get_or<std::int64_t>(object, "none", 5, "x"), 5);
  EXPECT_EQ(get_or<std::string>(object, "missing", "d", "x"), "d");
}

TEST(JsonGet, NamesFoundAndExpected) {
  const Json object = parse_json(R"({"s": "big", "half": 1.5, "huge": 18446744073709551615, "ns": [1, "2"], "o": {}})", "x");
  const auto error = [&](auto type, const char* key) {
    return error_of([&] { get<decltype(type)>(object, key, "config.json"); });
  };
  EXPECT_EQ(error(std::int64_t{}, "hidden_size"), "config.json: hidden_size: missing");
  EXPECT_EQ(error(std::int64_t{}, "s"), "config.json: s: found \"big\", expected a whole number");
  EXPECT_EQ(error(std::int64_t{}, "half"), "config.json: half: found 1.5, expected a whole number");
  EXPECT_EQ(error(std::int64_t{}, "huge"), "config.json: huge: found 18446744073709551615, expected a whole number");
  EXPECT_EQ(error(std::string{}, "half"), "config.json: half: found 1.5, expected a text");
  EXPECT_EQ(error(bool{}, "o"), "config.json: o: found an object, expected true or false");
  EXPECT_EQ(error(std::vector<std::int64_t>{}, "ns"), "config.json: ns[1]: found \"2\", expected a whole number");
  EXPECT_EQ(error(std::vector<double>{}, "s"), "config.json: s: found \"big\", expected a list");
  EXPECT_EQ(error_of([] { get<bool>(Json::array(), "a", "config.json"); }), "config.json: found a list of 0, expected an object");
}

TEST_F(JsonFiles, WritesAndReads) {
  Json value = {{"a", {1, 2}}, {"b", "\xff"}};
  write_json(folder / "a.json", value);
  EXPECT_EQ(read_file(folder / "a.json"), "{\n  \"a\": [\n    1,\n    2\n  ],\n  \"b\": \"\xef\xbf\xbd\"\n}\n");
  EXPECT_EQ(read_json(folder / "a.json")["a"], value["a"]);
  EXPECT_EQ(to_line(value), "{\"a\":[1,2],\"b\":\"\xef\xbf\xbd\"}");
  write_file(folder / "b.json", "{\n \"a\" 1}");
  EXPECT_EQ(error_of([&] { read_json(folder / "b.json"); }).find((folder / "b.json").string() + ":2:6: "), 0u);
}

}  // namespace molt::json_test
