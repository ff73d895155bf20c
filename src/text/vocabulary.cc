#include "text/vocabulary.h"

#include <algorithm>
#include <limits>

#include "text/component.h"

namespace molt::text {

std::int32_t parse_id(const Json& value, const std::string& place) {
  constexpr auto limit = std::numeric_limits<std::int32_t>::max();
  require(value.is_number_unsigned() && value.get<std::uint64_t>() < limit, place, ": found ",
          value.is_number() ? value.dump() : value.type_name(), ", expected a whole number in [0, ", limit, ")");
  return static_cast<std::int32_t>(value.get<std::uint64_t>());
}

Vocabulary::Vocabulary(const Json& object, const std::string& place) {
  require(object.is_object(), place, ": found ", object.type_name(), ", expected an object of token and id");
  ids_.reserve(object.size());
  tokens_.reserve(object.size());
  for (const auto& [token, id] : object.items()) {
    require(id.is_number_unsigned(), place, ": the id of \"", token, "\": found ", id.type_name(), ", expected a whole number");
    add(token, parse_id(id, place));
  }
}

void Vocabulary::add(std::string token, std::int32_t id) {
  const auto [entry, added] = ids_.insert_or_assign(std::move(token), id);
  tokens_.insert_or_assign(id, &entry->first);
  end_ = std::max(end_, std::int64_t{id} + 1);
}

std::optional<std::int32_t> Vocabulary::id(std::string_view token) const {
  const auto found = ids_.find(token);
  if (found == ids_.end()) return std::nullopt;
  return found->second;
}

const std::string* Vocabulary::token(std::int32_t id) const {
  const auto found = tokens_.find(id);
  return found == tokens_.end() ? nullptr : found->second;
}

}  // namespace molt::text
