// The words of the synthetic problems: names, items, and the phrasings of each relation.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/synthetic/world.h"

namespace molt::synthetic {

inline constexpr std::int64_t phrasings_per_relation = 6;

std::span<const std::string_view> names();
std::span<const std::string_view> items();  // singular; the plural ends in s

// Tokens separated by spaces; capital letters stand for what a statement fills in:
//   A the one whose quantity it defines   B, C its operands        K the constant    F the fraction, "half" or "a third"
//   S the item, singular                  J plural                 I agreeing with K
using Phrasings = std::span<const std::string_view, phrasings_per_relation>;
Phrasings phrasings(Relation relation);
Phrasings question_phrasings();  // of A and J alone

// Appends the statement that defines a quantity, or the question for it, in the given phrasing; no space at either end.
void append_statement(std::string& text, const World& world, const Quantity& quantity, std::int64_t phrasing);
void append_question(std::string& text, const Quantity& target, std::int64_t phrasing);
// Appends the worked chain, " hal = 2 . jan = 2 - 2 = 0 . answer : 0": every step restates the numbers it needs. With equations
// it is found from its end: " jan apples = hal - 2 . hal apples = 2 . jan apples = 2 - 2 = 0 . answer : 0".
void append_solution(std::string& text, const World& world, const Chain& chain, bool equations);

}  // namespace molt::synthetic
