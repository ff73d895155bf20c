// libFuzzer on JSON lines: every byte of the file is in some line, and a line that is no JSON ends in a UserError that names it.
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/error.h"
#include "base/files.h"
#include "base/json.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  molt::LineReader lines({reinterpret_cast<const char*>(data), size}, "fuzz.jsonl");
  std::string_view line;
  while (lines.next(line)) {
    try {
      const molt::Json value = molt::parse_json(line, lines.place());
      molt::to_line(value);
      molt::get_or<std::string>(value, "prompt", "", lines.place());
      molt::get_or<std::vector<std::int64_t>>(value, "tokens", {}, lines.place());
    } catch (const molt::UserError& error) {
      if (std::string_view(error.what()).find(lines.place()) != 0) __builtin_trap();
    }
  }
  if (lines.position() != static_cast<std::int64_t>(size)) __builtin_trap();
  return 0;
}
