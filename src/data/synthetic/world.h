// The world behind a problem: quantities ("how many apples jan has"), each defined once, by a number or from one or two others.
#pragma once
#include <array>
#include <cstdint>
#include <vector>

#include "base/random.h"
#include "data/synthetic/config.h"

namespace molt::synthetic {

inline constexpr std::int64_t most_steps = 12;
inline constexpr std::int64_t most_needed(std::int64_t steps) {  // quantities of one question: each step adds at most two
  return 2 * steps + 1;
}
inline constexpr std::int64_t largest_factor = 5;   // of "times as many"
inline constexpr std::int64_t largest_divisor = 3;  // of "half as many", "a third as many"

// How a quantity x follows from its operands a, b and its constant k.
enum class Relation : std::uint8_t {
  given,       // x = k
  more,        // x = a + k
  fewer,       // x = a - k
  times,       // x = a * k, k >= 2
  fraction,    // x = a / k, exact
  same,        // x = a
  sum,         // x = a + b
  difference,  // x = a - b, never negative
};
inline constexpr int relation_count = 8;
int operand_count(Relation relation);

struct Quantity {
  Relation relation = Relation::given;
  std::array<int, 2> operands = {-1, -1};  // indices of quantities that stand before this one
  std::int64_t constant = 0;
  std::int64_t value = 0;
  int name = 0;  // index into names()
  int item = 0;  // index into items()
};

// What a question needs: the quantities [begin, end) of a world in the order of the worked chain (depth first from the target,
// operands as they are named), the target last.
struct Chain {
  int begin = 0, end = 0;
};

struct World {
  // The quantities that questions need, then the distractors. Every (name, item) pair is defined once, so every question has one
  // answer.
  std::vector<Quantity> quantities;
  std::vector<Chain> chains;  // one a question, end to end from 0
  std::int64_t steps = 0;     // of the first question: needed quantities that are not given

  int needed() const { return chains.back().end; }
  const Quantity& target(const Chain& chain) const { return quantities[static_cast<std::size_t>(chain.end - 1)]; }
};

// A world of one question, with neither names nor items yet.
World make_graph(const SyntheticConfig& config, Random& random);
// Adds the question of another world without distractors behind those of `world`.
void append_graph(World& world, const World& other);

// A hash of what the first target computes: relations, constants and structure, without names, items, distractors or the order of
// a sum's operands. Worlds that differ by renaming alone have equal hashes; so have a shared quantity and two equal copies of it.
std::uint64_t graph_hash(const World& world);

// Whether a graph is one of the test split: a function of its hash alone, one in sixteen.
inline bool is_test_graph(std::uint64_t hash) {
  return hash % 16 == 0;
}

// The (name, item) pairs of a world not taken yet.
class Entities {
 public:
  // Of `names` of the names, drawn at random.
  Entities(std::int64_t names, Random& random);
  // The next `count` draws, at most as many as there are names, are of one kind of thing.
  void use_one_item(std::int64_t count);
  // Pairs of any of the world's first `items` kinds of things may be drawn from here on.
  void use_items(std::int64_t items);
  // Draws a free pair into the quantity; widens to another kind of thing once none is left. False when all are taken.
  bool draw(Quantity& quantity, Random& random);

 private:
  void add_item(int item);
  std::vector<int> names_;  // the world's
  std::vector<int> items_;  // its kinds of things in their random order
  std::size_t used_items_ = 0;
  std::vector<std::array<int, 2>> free_;
  std::vector<std::array<int, 2>> aside_;  // free too, and not drawn before use_items()
};

// Names the needed quantities, all of a question of one item.
void name_needed(World& world, Entities& entities, Random& random);
// Appends a quantity that the target does not depend on, given or derived from others of its item; false when no name is left.
bool add_distractor(World& world, const SyntheticConfig& config, Entities& entities, Random& random);

}  // namespace molt::synthetic
