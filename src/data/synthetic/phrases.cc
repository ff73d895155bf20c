#include "data/synthetic/phrases.h"

#include <array>
#include <charconv>

#include "base/error.h"

namespace molt::synthetic {
namespace phrase_tables {

constexpr std::array<std::string_view, 48> all_names = {
    "abe",   "ann", "bea", "ben", "cal", "cy",   "dan", "dot", "eli", "eve",  "fay", "flo",  "gil", "gus",  "hal", "ian",
    "ida",   "ivy", "jan", "jay", "kim", "kit",  "leo", "lou", "mia", "nan",  "ned", "nora", "ola", "otto", "pam", "pia",
    "quinn", "ray", "rex", "sal", "sue", "tess", "tom", "uma", "una", "vera", "vic", "walt", "wes", "xena", "yan", "zoe"};

constexpr std::array<std::string_view, 24> all_items = {"apple", "ball",   "bead", "book",  "button", "candle", "card",   "coin",
                                                        "cup",   "egg",    "key",  "kite",  "marble", "nut",    "pear",   "pen",
                                                        "plum",  "ribbon", "ring", "shell", "stamp",  "stone",  "ticket", "toy"};

using Table = std::array<std::string_view, phrasings_per_relation>;

// In the order of Relation. The plainest phrasing stands first: `phrasings: 1` uses it alone.
constexpr std::array<Table, relation_count> statements = {{
    {"A has K I .", "A owns K I .", "A keeps K I .", "the number of J that A has is K .", "A has a total of K I .",
     "A is the owner of K I ."},
    {"A has K more I than B .", "A owns K more I than B does .", "A has as many J as B and K more .",
     "compared with B , A has K more I .", "add K to the J of B and you get the J of A .",
     "A would need to give away K I to match B ."},
    {"A has K fewer I than B .", "A owns K fewer I than B does .", "A is K I short of what B has .",
     "compared with B , A has K fewer I .", "take K from the J of B and you get the J of A .",
     "A would need K more I to match B ."},
    {"A has K times as many J as B .", "A owns K times as many J as B does .", "for each S of B , A has K .",
     "compared with B , A has K times as many J .", "multiply the J of B by K and you get the J of A .",
     "it takes K times the J of B to match A ."},
    {"A has F as many J as B .", "A owns F as many J as B does .", "A has F of the number of J that B has .",
     "compared with B , A has F as many J .", "divide the J of B by K and you get the J of A .",
     "it takes F of the J of B to match A ."},
    {"A has as many J as B .", "A owns exactly as many J as B does .", "A has no more and no fewer J than B .",
     "compared with B , A has the same number of J .", "count the J of B and you get the J of A .",
     "it takes all the J of B to match A ."},
    {"A has as many J as B and C together .", "A owns as many J as B and C do combined .",
     "A has as many J as the sum of B and C .", "compared with B and C together , A has the same number of J .",
     "add the J of B and C and you get the J of A .", "it takes the J of B and C together to match A ."},
    {"A has as many J as the difference between B and C .", "A owns as many J as B does minus those of C .",
     "A has as many J as B would without those of C .", "compared with B minus C , A has the same number of J .",
     "from the J of B take those of C and you get the J of A .", "it takes the J of B minus those of C to match A ."},
}};

constexpr Table questions = {"how many J does A have ?",
                             "how many J does A own ?",
                             "how many J does A keep ?",
                             "what is the number of J that A has ?",
                             "count the J of A . how many are there ?",
                             "tell us how many J A has ."};

constexpr std::string_view fraction_word(std::int64_t divisor) {
  return divisor == 2 ? "half" : "a third";
}

void append_number(std::string& text, std::int64_t number) {
  char digits[24];
  text.append(digits, std::to_chars(digits, digits + sizeof digits, number).ptr);
}

// What the capital letters of a phrasing stand for.
struct Holes {
  std::array<std::string_view, 3> people;  // A, B, C
  std::int64_t constant = 0;
  std::string_view item;
};

void append_filled(std::string& text, std::string_view phrasing, const Holes& holes) {
  for (const char c : phrasing) {
    switch (c) {
      case 'A':
      case 'B':
      case 'C':
        text += holes.people[static_cast<std::size_t>(c - 'A')];
        break;
      case 'K':
        append_number(text, holes.constant);
        break;
      case 'F':
        text += fraction_word(holes.constant);
        break;
      case 'S':
      case 'J':
      case 'I':
        text += holes.item;
        if (c == 'J' || (c == 'I' && holes.constant != 1)) text += 's';
        break;
      default:
        text += c;
    }
  }
}

}  // namespace phrase_tables

std::span<const std::string_view> names() {
  return phrase_tables::all_names;
}
std::span<const std::string_view> items() {
  return phrase_tables::all_items;
}
Phrasings phrasings(Relation relation) {
  return phrase_tables::statements[static_cast<std::size_t>(relation)];
}
Phrasings question_phrasings() {
  return phrase_tables::questions;
}

void append_statement(std::string& text, const World& world, const Quantity& quantity, std::int64_t phrasing) {
  phrase_tables::Holes holes;
  holes.people[0] = names()[static_cast<std::size_t>(quantity.name)];
  for (std::size_t side = 0; side < 2; ++side) {
    if (quantity.operands[side] < 0) continue;
    holes.people[side + 1] =
        names()[static_cast<std::size_t>(world.quantities[static_cast<std::size_t>(quantity.operands[side])].name)];
  }
  holes.constant = quantity.constant;
  holes.item = items()[static_cast<std::size_t>(quantity.item)];
  phrase_tables::append_filled(text, phrasings(quantity.relation)[static_cast<std::size_t>(phrasing)], holes);
}

void append_question(std::string& text, const Quantity& target, std::int64_t phrasing) {
  phrase_tables::Holes holes;
  holes.people[0] = names()[static_cast<std::size_t>(target.name)];
  holes.item = items()[static_cast<std::size_t>(target.item)];
  phrase_tables::append_filled(text, question_phrasings()[static_cast<std::size_t>(phrasing)], holes);
}

namespace phrase_tables {

enum class Step { plain, equation, solved };

// plain, " kim = 12 * 2 = 24 ."; an equation, " kim apples = tom * 2 ."; and solved, " kim apples = 12 * 2 = 24 .".
void append_step(std::string& text, const World& world, const Quantity& x, Step step) {
  const bool named = step == Step::equation;
  constexpr std::string_view operators = " +-*/ +-";  // in the order of Relation; given and same restate a number
  const char symbol = operators[static_cast<std::size_t>(x.relation)];
  const auto append_operand = [&](std::size_t side) {
    const Quantity& operand = world.quantities[static_cast<std::size_t>(x.operands[side])];
    if (named)
      text += names()[static_cast<std::size_t>(operand.name)];
    else
      append_number(text, operand.value);
  };
  text += ' ';
  text += names()[static_cast<std::size_t>(x.name)];
  if (step != Step::plain) {
    text += ' ';
    text += items()[static_cast<std::size_t>(x.item)];
    text += 's';
  }
  text += " = ";
  if (named || symbol != ' ') append_operand(0);
  if (symbol != ' ') {
    text += ' ';
    text += symbol;
    text += ' ';
    if (operand_count(x.relation) == 2)
      append_operand(1);
    else
      append_number(text, x.constant);
    if (!named) text += " = ";
  }
  if (!named) append_number(text, x.value);
  text += " .";
}

// What a quantity needs, then the quantity, each with its equation before; `solved` holds what was told already.
void append_with_equations(std::string& text, const World& world, int node, std::vector<bool>& solved) {
  if (solved[static_cast<std::size_t>(node)]) return;
  solved[static_cast<std::size_t>(node)] = true;
  const Quantity& x = world.quantities[static_cast<std::size_t>(node)];
  if (operand_count(x.relation) > 0) append_step(text, world, x, Step::equation);
  for (const int operand : x.operands) {
    if (operand >= 0) append_with_equations(text, world, operand, solved);
  }
  append_step(text, world, x, Step::solved);
}

}  // namespace phrase_tables

void append_solution(std::string& text, const World& world, const Chain& chain, bool equations) {
  using namespace phrase_tables;
  if (equations) {
    std::vector<bool> solved(static_cast<std::size_t>(chain.end));
    append_with_equations(text, world, chain.end - 1, solved);
  } else {
    for (int i = chain.begin; i < chain.end; ++i)
      append_step(text, world, world.quantities[static_cast<std::size_t>(i)], Step::plain);
  }
  text += " answer : ";
  append_number(text, world.target(chain).value);
}

}  // namespace molt::synthetic
