// Tokens and their ids.
#pragma once
#include <algorithm>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "base/json.h"

namespace molt::text {

class Vocabulary {
 public:
  Vocabulary() = default;
  // From an object of token → id; ids are whole numbers below 2^31 - 1, with or without gaps.
  Vocabulary(const Json& object, const std::string& place);
  Vocabulary(Vocabulary&&) = default;
  Vocabulary& operator=(Vocabulary&&) = default;

  void add(std::string token, std::int32_t id);
  std::optional<std::int32_t> id(std::string_view token) const;
  // Null where the id has no token.
  const std::string* token(std::int32_t id) const;
  // Tokens, one that stands under several ids counted as often.
  std::size_t size() const { return std::max(ids_.size(), tokens_.size()); }
  // One more than the largest id.
  std::int64_t end() const { return end_; }

 private:
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };
  std::unordered_map<std::string, std::int32_t, Hash, std::equal_to<>> ids_;
  std::unordered_map<std::int32_t, const std::string*> tokens_;  // keys of ids_, which stay where they are
  std::int64_t end_ = 0;
};

// An id read from JSON; a UserError unless it is a whole number in [0, 2^31 - 1).
std::int32_t parse_id(const Json& value, const std::string& place);

}  // namespace molt::text
