// Reads a synthetic problem back from its text alone and solves it: an oracle that shares only the phrasings with the generator.
#pragma once
#include <algorithm>
#include <map>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "data/synthetic/phrases.h"

namespace molt::synthetic_reader {

using synthetic::Relation;
using Key = std::pair<std::string, std::string>;  // name, item

inline std::vector<std::string> split(std::string_view text) {
  std::istringstream in{std::string(text)};
  std::vector<std::string> tokens;
  for (std::string token; in >> token;) tokens.push_back(token);
  return tokens;
}

template <class Table>
bool holds(const Table& table, const std::string& word) {
  return std::find(table.begin(), table.end(), word) != table.end();
}

struct Statement {
  Relation relation = Relation::given;
  std::map<char, std::string> people;
  std::int64_t constant = 0;
  std::string item;
  std::size_t end = 0;  // the token behind it
};

// The statement that `pattern` finds at tokens[at], if it fits there.
inline std::optional<Statement> match(const std::vector<std::string>& pattern, const std::vector<std::string>& tokens,
                                      std::size_t at) {
  Statement found;
  bool plural_agrees = false, singular = false;
  for (const std::string& want : pattern) {
    if (at >= tokens.size()) return std::nullopt;
    const std::string& word = tokens[at++];
    const char hole = want.size() == 1 ? want[0] : ' ';
    if (hole >= 'A' && hole <= 'C') {
      if (!holds(synthetic::names(), word)) return std::nullopt;
      found.people[hole] = word;
    } else if (hole == 'K') {
      if (word.find_first_not_of("0123456789") != std::string::npos) return std::nullopt;
      found.constant = std::stoll(word);
    } else if (hole == 'F') {
      if (word != "half" && !(word == "a" && at < tokens.size() && tokens[at++] == "third")) return std::nullopt;
      found.constant = word == "half" ? 2 : 3;
    } else if (hole == 'S' || hole == 'I' || hole == 'J') {
      const bool is_singular = holds(synthetic::items(), word);
      if (!is_singular && !(word.back() == 's' && holds(synthetic::items(), word.substr(0, word.size() - 1))))
        return std::nullopt;
      if (hole != 'I' && is_singular != (hole == 'S')) return std::nullopt;
      if (hole == 'I') plural_agrees = true, singular = is_singular;
      found.item = is_singular ? word : word.substr(0, word.size() - 1);
    } else if (want != word) {
      return std::nullopt;
    }
  }
  if (plural_agrees && singular != (found.constant == 1)) return std::nullopt;
  found.end = at;
  return found;
}

struct Reading {
  std::map<Key, Statement> world;
  Key asked;

  std::int64_t value(const Key& key) const { return evaluate(key, 0).first; }
  // The expression of a quantity without names: equal exactly for problems that differ by renaming (and by a sum's order).
  std::string expression(const Key& key) const { return evaluate(key, 0).second; }

 private:
  std::pair<std::int64_t, std::string> evaluate(const Key& key, int depth) const {
    require(depth < 600, "a circle of definitions at ", key.first);
    const Statement& x = world.at(key);
    const auto operand = [&](char side) { return evaluate({x.people.at(side), key.second}, depth + 1); };
    const auto unary = [&](auto compute, char symbol) {
      const auto [a, inner] = operand('B');
      return std::pair<std::int64_t, std::string>(compute(a), concat("(", symbol, x.constant, " ", inner, ")"));
    };
    const auto binary = [&](auto compute, char symbol) {
      auto [a, left] = operand('B');
      auto [b, right] = operand('C');
      const std::int64_t result = compute(a, b);
      if (left > right) std::swap(left, right);
      return std::pair<std::int64_t, std::string>(result, concat("[", symbol, " ", left, " ", right, "]"));
    };
    switch (x.relation) {
      case Relation::given:
        return {x.constant, std::to_string(x.constant)};
      case Relation::more:
        return unary([&](auto a) { return a + x.constant; }, '+');
      case Relation::fewer:
        return unary([&](auto a) { return a - x.constant; }, '-');
      case Relation::times:
        return unary([&](auto a) { return a * x.constant; }, '*');
      case Relation::fraction:
        return unary(
            [&](auto a) {
              require(a % x.constant == 0, a, " has no whole part of ", x.constant);
              return a / x.constant;
            },
            '/');
      case Relation::same:
        return unary([](auto a) { return a; }, '=');
      case Relation::sum:
        return binary([](auto a, auto b) { return a + b; }, '+');
      default:
        return binary([](auto a, auto b) { return a - b; }, '-');
    }
  }
};

// Reads every statement, each of which must fit exactly one relation and define a quantity not defined before; then the question,
// unless it is prose.
inline Reading read(std::string_view text, bool question = true) {
  static const auto table = [] {
    std::vector<std::pair<Relation, std::vector<std::string>>> patterns;
    for (int i = 0; i < synthetic::relation_count; ++i) {
      for (const auto phrasing : synthetic::phrasings(static_cast<Relation>(i)))
        patterns.emplace_back(static_cast<Relation>(i), split(phrasing));
    }
    return patterns;
  }();
  const std::vector<std::string> tokens = split(text);
  Reading reading;
  std::size_t at = 0;
  while (at < tokens.size()) {
    std::vector<Statement> fits;
    for (const auto& [relation, pattern] : table) {
      if (auto found = match(pattern, tokens, at)) {
        found->relation = relation;
        fits.push_back(*found);
      }
    }
    if (fits.empty()) break;
    require(fits.size() == 1, "a statement that can be read in ", fits.size(), " ways at token ", at, ": ", text);
    const Key key{fits[0].people.at('A'), fits[0].item.empty() ? "" : fits[0].item};
    require(reading.world.emplace(key, fits[0]).second, key.first, " is defined twice: ", text);
    at = fits[0].end;
  }
  if (!question) {
    require(at == tokens.size(), "unread text: ", text);
    return reading;
  }
  for (const auto phrasing : synthetic::question_phrasings()) {
    const auto found = match(split(phrasing), tokens, at);
    if (found && found->end == tokens.size()) {
      reading.asked = {found->people.at('A'), found->item};
      return reading;
    }
  }
  fail("no question at token ", at, ": ", text);
}

}  // namespace molt::synthetic_reader
