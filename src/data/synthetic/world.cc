#include "data/synthetic/world.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/error.h"
#include "data/synthetic/phrases.h"

namespace molt::synthetic {
namespace world_parts {

constexpr double binary_share = 0.3;  // of derived quantities
constexpr double reuse_share = 0.25;  // of operands that are already needed elsewhere
constexpr double given_share = 0.4;   // of distractors
constexpr std::size_t most_quantities = most_needed(most_steps);

template <class T>
T take(std::vector<T>& values, Random& random) {
  std::swap(values[static_cast<std::size_t>(random.below(static_cast<std::int64_t>(values.size())))], values.back());
  const T value = values.back();
  values.pop_back();
  return value;
}

template <class T>
const T& pick(const std::vector<T>& values, Random& random) {
  return values[static_cast<std::size_t>(random.below(static_cast<std::int64_t>(values.size())))];
}

std::int64_t draw_steps(const SyntheticConfig& config, Random& random) {
  if (config.steps_weights.empty()) return random.between(config.steps_min, config.steps_max);
  double left = random.uniform() * std::accumulate(config.steps_weights.begin(), config.steps_weights.end(), 0.0);
  std::int64_t chosen = config.steps_min;
  for (std::size_t i = 0; i < config.steps_weights.size(); ++i) {
    if (config.steps_weights[i] <= 0) continue;
    chosen = config.steps_min + static_cast<std::int64_t>(i);
    left -= config.steps_weights[i];
    if (left < 0) break;
  }
  return chosen;
}

// Relation, constant and value of a quantity of no operand.
void settle_given(Quantity& x, const SyntheticConfig& config, Random& random) {
  x.relation = Relation::given;
  x.constant = random.between(1, config.operands_max);
  x.value = x.constant;
}

// … of one operand of value a: every relation whose result stays within range can be drawn.
void settle_unary(Quantity& x, std::int64_t a, const SyntheticConfig& config, Random& random) {
  const std::int64_t most = config.numbers_max;
  const bool divisible = a >= 2 && (a % 2 == 0 || a % 3 == 0);
  const std::array<std::pair<Relation, int>, 5> shares = {{{Relation::more, a < most ? 3 : 0},
                                                           {Relation::fewer, a >= 1 ? 3 : 0},
                                                           {Relation::times, a >= 1 && 2 * a <= most ? 2 : 0},
                                                           {Relation::fraction, divisible ? 2 : 0},
                                                           {Relation::same, 1}}};
  int sum = 0;
  for (const auto& [relation, share] : shares) sum += share;
  std::int64_t left = random.below(sum);
  for (const auto& [relation, share] : shares) {
    x.relation = relation;
    left -= share;
    if (left < 0) break;
  }
  x.constant = 0;
  x.value = a;
  switch (x.relation) {
    case Relation::more:
      x.constant = random.between(1, std::min(config.operands_max, most - a));
      x.value = a + x.constant;
      break;
    case Relation::fewer:
      x.constant = random.between(1, std::min(config.operands_max, a));
      x.value = a - x.constant;
      break;
    case Relation::times:
      x.constant = random.between(2, std::min(largest_factor, most / a));
      x.value = a * x.constant;
      break;
    case Relation::fraction:
      x.constant = a % 6 == 0 ? random.between(2, largest_divisor) : (a % 2 == 0 ? 2 : 3);
      x.value = a / x.constant;
      break;
    default:
      break;
  }
}

// … of two operands of values a and b; a difference names the larger first.
void settle_binary(Quantity& x, std::int64_t a, std::int64_t b, const SyntheticConfig& config, Random& random) {
  const bool can_add = a + b <= config.numbers_max;
  const bool can_subtract = a != b;
  const bool add = can_add && (!can_subtract || random.below(2) == 0);
  x.relation = add ? Relation::sum : Relation::difference;
  x.constant = 0;
  if (!add && a < b) std::swap(x.operands[0], x.operands[1]);
  x.value = add ? a + b : std::max(a, b) - std::min(a, b);
}

void settle(Quantity& x, const std::vector<Quantity>& quantities, const SyntheticConfig& config, Random& random) {
  const auto value = [&](int side) {
    return quantities[static_cast<std::size_t>(x.operands[static_cast<std::size_t>(side)])].value;
  };
  if (x.operands[0] < 0) {
    settle_given(x, config, random);
  } else if (x.operands[1] < 0) {
    settle_unary(x, value(0), config, random);
  } else {
    settle_binary(x, value(0), value(1), config, random);
  }
}

// The structure alone, drawn from the target backwards: an open node is one that others need and that is not defined yet.
// Operands are open or new nodes, never defined ones, so there are no cycles. The result is in order of dependency.
std::vector<Quantity> draw_structure(std::int64_t steps, Random& random) {
  std::vector<std::array<int, 2>> operands = {{-1, -1}};
  std::vector<int> open = {0}, defined;
  operands.reserve(most_quantities);
  open.reserve(most_quantities);
  defined.reserve(most_quantities);
  for (std::int64_t step = 0; step < steps; ++step) {
    const int node = take(open, random);
    defined.push_back(node);
    const std::size_t arity = random.uniform() < binary_share ? 2 : 1;
    std::array<int, 2> chosen = {-1, -1};
    for (std::size_t side = 0; side < arity; ++side) {
      if (!open.empty() && random.uniform() < reuse_share) chosen[side] = pick(open, random);
      if (side == 1 && chosen[1] == chosen[0]) chosen[1] = -1;
      if (chosen[side] >= 0) continue;
      chosen[side] = static_cast<int>(operands.size());
      operands.push_back({-1, -1});
      open.push_back(chosen[side]);
    }
    operands[static_cast<std::size_t>(node)] = chosen;
  }
  defined.insert(defined.end(), open.begin(), open.end());
  std::vector<int> place(operands.size());
  for (std::size_t i = 0; i < defined.size(); ++i)
    place[static_cast<std::size_t>(defined[i])] = static_cast<int>(defined.size() - 1 - i);
  std::vector<Quantity> quantities(operands.size());
  for (std::size_t node = 0; node < operands.size(); ++node) {
    Quantity& x = quantities[static_cast<std::size_t>(place[node])];
    for (std::size_t side = 0; side < 2; ++side) {
      if (operands[node][side] >= 0) x.operands[side] = place[static_cast<std::size_t>(operands[node][side])];
    }
  }
  return quantities;
}

// Appends the quantities that `node` needs, then `node`, each once; `place` maps old indices to new ones (-1: not yet appended).
void append_chain(int node, const std::vector<Quantity>& from, std::vector<int>& place, std::vector<Quantity>& to) {
  if (place[static_cast<std::size_t>(node)] >= 0) return;
  Quantity x = from[static_cast<std::size_t>(node)];
  for (int& operand : x.operands) {
    if (operand < 0) continue;
    append_chain(operand, from, place, to);
    operand = place[static_cast<std::size_t>(operand)];
  }
  place[static_cast<std::size_t>(node)] = static_cast<int>(to.size());
  to.push_back(x);
}

std::uint64_t mix(std::uint64_t hash, std::uint64_t value) {
  return Random(hash ^ value).next();
}

}  // namespace world_parts

int operand_count(Relation relation) {
  if (relation == Relation::given) return 0;
  return relation == Relation::sum || relation == Relation::difference ? 2 : 1;
}

World make_graph(const SyntheticConfig& config, Random& random) {
  using namespace world_parts;
  World world;
  world.steps = draw_steps(config, random);
  std::vector<Quantity> quantities = draw_structure(world.steps, random);
  for (Quantity& x : quantities) settle(x, quantities, config, random);
  std::vector<int> place(quantities.size(), -1);
  world.quantities.reserve(quantities.size() + 4);
  append_chain(static_cast<int>(quantities.size()) - 1, quantities, place, world.quantities);
  world.chains = {{0, static_cast<int>(world.quantities.size())}};
  return world;
}

void append_graph(World& world, const World& other) {
  const int begin = static_cast<int>(world.quantities.size());
  for (Quantity x : other.quantities) {
    for (int& operand : x.operands) {
      if (operand >= 0) operand += begin;
    }
    world.quantities.push_back(x);
  }
  world.chains.push_back({begin, static_cast<int>(world.quantities.size())});
}

std::uint64_t graph_hash(const World& world) {
  using world_parts::mix;
  std::array<std::uint64_t, world_parts::most_quantities> hashes{};
  const int needed = world.chains.front().end;
  MOLT_CHECK(static_cast<std::size_t>(needed) <= hashes.size(), "a graph of ", needed, " quantities");
  for (int i = 0; i < needed; ++i) {
    const Quantity& x = world.quantities[static_cast<std::size_t>(i)];
    std::array<std::uint64_t, 2> operands{};
    for (std::size_t side = 0; side < 2; ++side) {
      if (x.operands[side] >= 0) operands[side] = hashes[static_cast<std::size_t>(x.operands[side])];
    }
    // The values decide which operand of a difference comes first, so the order tells nothing there either.
    if (operand_count(x.relation) == 2 && operands[0] > operands[1]) std::swap(operands[0], operands[1]);
    std::uint64_t hash = mix(static_cast<std::uint64_t>(x.relation) + 1, static_cast<std::uint64_t>(x.constant) << 8);
    for (const std::uint64_t operand : operands) hash = mix(hash, operand);
    hashes[static_cast<std::size_t>(i)] = hash;
  }
  return hashes[static_cast<std::size_t>(needed - 1)];
}

Entities::Entities(std::int64_t names, Random& random) : names_(synthetic::names().size()), items_(items().size()) {
  std::iota(names_.begin(), names_.end(), 0);
  std::iota(items_.begin(), items_.end(), 0);
  random.shuffle(items_);
  if (names < std::ssize(names_)) {
    random.shuffle(names_);
    names_.resize(static_cast<std::size_t>(names));
  }
  use_items(1);
}

void Entities::add_item(int item) {
  for (const int name : names_) free_.push_back({name, item});
}

void Entities::use_one_item(std::int64_t count) {
  if (std::ssize(free_) >= count) return;
  aside_.insert(aside_.end(), free_.begin(), free_.end());
  free_.clear();
  MOLT_CHECK(used_items_ < items_.size(), "more questions than kinds of things");
  add_item(items_[used_items_++]);
}

void Entities::use_items(std::int64_t items) {
  free_.insert(free_.end(), aside_.begin(), aside_.end());
  aside_.clear();
  while (used_items_ < static_cast<std::size_t>(items) && used_items_ < items_.size()) add_item(items_[used_items_++]);
}

bool Entities::draw(Quantity& quantity, Random& random) {
  if (free_.empty()) use_items(static_cast<std::int64_t>(used_items_) + 1);
  if (free_.empty()) return false;
  const auto [name, item] = world_parts::take(free_, random);
  quantity.name = name;
  quantity.item = item;
  return true;
}

void name_needed(World& world, Entities& entities, Random& random) {
  for (const Chain& chain : world.chains) {
    entities.use_one_item(chain.end - chain.begin);
    for (int i = chain.begin; i < chain.end; ++i) entities.draw(world.quantities[static_cast<std::size_t>(i)], random);
  }
}

bool add_distractor(World& world, const SyntheticConfig& config, Entities& entities, Random& random) {
  using namespace world_parts;
  Quantity x;
  if (!entities.draw(x, random)) return false;
  std::vector<int> others;
  for (std::size_t i = 0; i < world.quantities.size(); ++i) {
    if (world.quantities[i].item == x.item) others.push_back(static_cast<int>(i));
  }
  if (!others.empty() && random.uniform() >= given_share) {
    x.operands[0] = take(others, random);
    if (!others.empty() && random.uniform() < binary_share) x.operands[1] = take(others, random);
  }
  settle(x, world.quantities, config, random);
  world.quantities.push_back(x);
  return true;
}

}  // namespace molt::synthetic
