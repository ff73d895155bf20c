// libFuzzer on configuration files: YAML that does not fit ends in a UserError; what fits is written and read again as the same.
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/config.h"
#include "base/error.h"

namespace {

struct Inner {
  std::int64_t count = 3;
  double rate = 0.5;
  std::string word = "b";
  std::vector<std::string> names;
  std::optional<std::int64_t> maybe;
  void visit(molt::ConfigVisitor& v) {
    v.field("count", count, "");
    v.field("rate", rate, "");
    v.choice("word", word, {"a", "b"}, "");
    v.field("names", names, "");
    v.field("maybe", maybe, "");
  }
};

struct Outer {
  bool flag = false;
  Inner inner;
  std::optional<Inner> optional;
  std::vector<Inner> list;
  std::map<std::string, Inner> map;
  void visit(molt::ConfigVisitor& v) {
    v.field("flag", flag, "");
    v.field("inner", inner, "");
    v.field("optional", optional, "");
    v.field("list", list, "");
    v.field("map", map, "");
  }
};

Outer parse(const std::string& text) {
  Outer outer;
  molt::parse_config(text, "fuzz", {}, [&](molt::ConfigVisitor& v) { outer.visit(v); });
  return outer;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const std::string written = molt::to_yaml(parse({reinterpret_cast<const char*>(data), size}));
    if (molt::to_yaml(parse(written)) != written) __builtin_trap();
  } catch (const molt::UserError&) {
  }
  return 0;
}
