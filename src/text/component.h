// How the parts of a tokenizer.json are made from their JSON: each by its `type`, with errors that name file, key and type. For
// the room's .cc files only: it includes the whole of nlohmann's JSON.
#pragma once
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/json.h"

namespace molt::text {

// The member `key`, present and not null.
inline const Json& member(const Json& object, const std::string& key, const std::string& place) {
  require(object.is_object(), place, ": found ", object.type_name(), ", expected an object");
  const auto found = object.find(key);
  require(found != object.end() && !found->is_null(), place, ": ", key, ": missing");
  return *found;
}

// The same, and a list.
inline const Json& list_member(const Json& object, const std::string& key, const std::string& place) {
  const Json& list = member(object, key, place);
  require(list.is_array(), place, ": ", key, ": found ", list.type_name(), ", expected a list");
  return list;
}

inline std::string item_place(const std::string& place, const std::string& key, std::size_t index) {
  return concat(place, ": ", key, "[", index, "]");
}

// The value that goes with `name`; a name that is none of the table's is a UserError that lists them.
template <class Value>
Value choose(const std::string& name, const std::string& place, std::initializer_list<std::pair<const char*, Value>> table) {
  std::string names;
  for (const auto& [known, value] : table) {
    if (name == known) return value;
    names += concat(names.empty() ? "" : ", ", known);
  }
  fail(place, ": found \"", name, "\", expected one of ", names);
}

// A component by its `type`: table of type → function (const Json&, const std::string& place) that makes one.
template <class Made>
Made make_component(const Json& json, const std::string& place,
                    std::initializer_list<std::pair<const char*, Made (*)(const Json&, const std::string&)>> table) {
  member(json, "type", place);
  return choose(get<std::string>(json, "type", place), place + ": type", table)(json, place);
}

// The parts of a Sequence, each made by `make`.
template <class Made>
std::vector<Made> make_list(const Json& json, const std::string& key, const std::string& place,
                            Made (*make)(const Json&, const std::string&)) {
  std::vector<Made> parts;
  for (const Json& part : list_member(json, key, place)) parts.push_back(make(part, item_place(place, key, parts.size())));
  return parts;
}

}  // namespace molt::text
