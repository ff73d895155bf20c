// JSON values (nlohmann) read and written with errors that name the file and the place.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "base/files.h"

namespace molt {

using Json = nlohmann::json;
using OrderedJson = nlohmann::ordered_json;

// Parses text; `place` ("traces.jsonl:17") names it in errors. Nesting deeper than 256 is an error, never a crash.
Json parse_json(std::string_view text, const std::string& place);
OrderedJson parse_ordered_json(std::string_view text, const std::string& place);
Json read_json(const fs::path& path);
// Whole or absent, indented by two, with a final newline.
void write_json(const fs::path& path, const Json& value);
void write_json(const fs::path& path, const OrderedJson& value);
// One line, valid UTF-8 whatever the strings hold (broken sequences are replaced).
std::string to_line(const Json& value);
std::string to_line(const OrderedJson& value);

// The member `key` of an object as T (bool, int64_t, double, std::string, vectors of them); a missing or mistyped one is a
// UserError "config.json: hidden_size: found \"big\", expected a whole number". The second form gives `otherwise` for a missing
// or null member.
template <class T>
T get(const Json& object, const std::string& key, const std::string& place);
template <class T>
T get_or(const Json& object, const std::string& key, T otherwise, const std::string& place);

}  // namespace molt
