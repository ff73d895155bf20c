#include "infer/engine.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <deque>
#include <iterator>
#include <utility>

#include "base/error.h"
#include "infer/cache_pool.h"
#include "infer/step_buffer.h"

namespace molt {
namespace engine_detail {

struct Sequence {
  std::int64_t id;
  Request request;
  CachePool::Lease lease;
  std::int64_t cached = 0;     // tokens in the cache
  std::int64_t generated = 0;  // of which the last is not in the cache yet
  std::int32_t last = -1;
  bool done = false;

  std::int64_t prompt_left() const { return static_cast<std::int64_t>(request.prompt.size()) - cached; }
};

// What goes through the model in one call, and what comes out.
struct Share {
  Share(at::Device device, std::int64_t block_size) : buffer(device, block_size) {}

  void add(Sequence& sequence, std::int64_t count);
  void run(const Model& model, CachePool& pool);

  StepBuffer buffer;
  std::vector<StepPart> parts;
  std::int64_t rows = 0;
  // Sequences that get a token, and where each one's last row is.
  std::vector<Sequence*> sampled;
  std::vector<std::int64_t> sampled_rows, draws;
  std::vector<SamplingOptions> sampling;
  std::vector<std::int32_t> tokens;
  std::vector<float> log_probabilities;
};

// The next `count` tokens of a sequence.
void Share::add(Sequence& sequence, std::int64_t count) {
  std::span<const std::int32_t> next(&sequence.last, 1);
  if (sequence.prompt_left() > 0) {
    next = std::span(sequence.request.prompt).subspan(static_cast<std::size_t>(sequence.cached), static_cast<std::size_t>(count));
  }
  parts.push_back({next, sequence.cached, &sequence.lease});
  rows += count;
  sequence.cached += count;
  if (sequence.prompt_left() > 0) return;
  sampled.push_back(&sequence);
  sampled_rows.push_back(rows - 1);
  draws.push_back(sequence.generated);
  sampling.push_back(sequence.request.sampling);
}

void Share::run(const Model& model, CachePool& pool) {
  c10::InferenceMode no_gradients;
  at::Tensor hidden = model.extend(buffer.build(parts), pool.caches());
  if (!sampled.empty()) {
    if (static_cast<std::int64_t>(sampled.size()) < rows) {
      hidden = hidden.index_select(0, at::tensor(sampled_rows, at::kLong).to(hidden.device()));
    }
    tokens = sample(model.logits(hidden), sampling, draws, log_probabilities);
  }
  parts.clear(), rows = 0;
}

// How many shares of its sequences a step is worked off in, each by one thread: a small model's layers are too short to be worth
// dividing, and its weights are near every core.
std::int64_t max_shares(const Model& model) {
  constexpr double small = 64 << 20;  // bytes of weights
  if (!model.device().is_cpu()) return 1;
  const double weights = model.flops(1) / 2;  // nearly: each is multiplied once
  return weights * static_cast<double>(c10::elementSize(model.dtype())) <= small ? at::get_num_threads() : 1;
}

const EngineOptions& checked(const EngineOptions& options) {
  require(options.max_sequences > 0, "max_sequences: found ", options.max_sequences, ", expected at least 1");
  require(options.max_tokens > 1, "max_tokens: found ", options.max_tokens, ", expected at least 2");
  require(options.prefill_tokens > 0, "prefill_tokens: found ", options.prefill_tokens, ", expected at least 1");
  return options;
}

}  // namespace engine_detail

struct Engine::State {
  using Sequence = engine_detail::Sequence;
  using Share = engine_detail::Share;

  State(const Model& the_model, const EngineOptions& the_options)
      : model(the_model), options(engine_detail::checked(the_options)), pool(model, options.max_sequences, options.max_tokens) {
    for (std::int64_t i = engine_detail::max_shares(model); i-- > 0;) shares.emplace_back(model.device(), pool.block_size());
  }

  void admit();
  // Deals the next step's tokens out to the shares.
  void plan();
  void run();
  void take(Sequence& sequence, std::int32_t token, float log_probability);

  const Model& model;
  EngineOptions options;
  CachePool pool;
  std::vector<Share> shares;
  std::int64_t next_id = 0;
  std::deque<std::pair<std::int64_t, Request>> queue;
  std::vector<std::unique_ptr<Sequence>> running;  // in order of request
  std::vector<Event> events;                       // to be reported
};

void Engine::State::admit() {
  while (!queue.empty()) {
    auto lease = pool.acquire();
    if (!lease) return;
    running.push_back(std::make_unique<Sequence>(queue.front().first, std::move(queue.front().second), std::move(*lease)));
    queue.pop_front();
  }
}

void Engine::State::plan() {
  std::vector<std::pair<Sequence*, std::int64_t>> step;
  std::int64_t prefill_left = options.prefill_tokens, total = 0, longest = 0;
  for (const auto& sequence : running) {
    std::int64_t count = 1;
    if (sequence->prompt_left() > 0) {
      count = std::min(sequence->prompt_left(), prefill_left);
      prefill_left -= count;
      if (count == 0) continue;
    }
    step.emplace_back(sequence.get(), count);
    total += count;
    longest = std::max(longest, count);
  }
  // Waking a thread pays from a few sequences on; a long prompt is better divided inside the layers.
  constexpr std::int64_t least = 4;
  std::int64_t used = std::clamp<std::int64_t>(std::ssize(step) / least, 1, std::ssize(shares));
  if (longest > total / used) used = 1;
  std::int64_t dealt = 0;
  for (const auto& [sequence, count] : step) {
    shares[static_cast<std::size_t>(dealt * used / total)].add(*sequence, count);
    dealt += count;
  }
}

void Engine::State::run() {
  std::vector<Share*> busy;
  for (Share& share : shares) {
    if (!share.parts.empty()) busy.push_back(&share);
  }
  at::parallel_for(0, std::ssize(busy), 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) busy[static_cast<std::size_t>(i)]->run(model, pool);
  });
  for (Share* share : busy) {
    for (std::size_t i = 0; i < share->sampled.size(); ++i) {
      take(*share->sampled[i], share->tokens[i], share->log_probabilities[i]);
    }
    share->sampled.clear(), share->sampled_rows.clear(), share->draws.clear(), share->sampling.clear();
  }
  std::erase_if(running, [](const auto& sequence) { return sequence->done; });
}

void Engine::State::take(Sequence& sequence, std::int32_t token, float log_probability) {
  sequence.last = token;
  ++sequence.generated;
  events.push_back({sequence.id, Event::Kind::token, token, log_probability, Event::Reason::none});
  const auto& stops = sequence.request.stop_tokens;
  const bool stopped = std::find(stops.begin(), stops.end(), token) != stops.end();
  if (!stopped && sequence.generated < sequence.request.max_tokens) return;
  events.push_back({sequence.id, Event::Kind::finished, -1, 0, stopped ? Event::Reason::stop : Event::Reason::length});
  pool.release(sequence.lease);
  sequence.done = true;
}

Engine::Engine(const Model& model, const EngineOptions& options) : state_(std::make_unique<State>(model, options)) {}

Engine::~Engine() = default;

std::int64_t Engine::submit(Request request) {
  const std::string place = concat("request ", state_->next_id, ": ");
  const std::int64_t vocabulary = state_->model.config().vocabulary;
  require(!request.prompt.empty(), place, "prompt: found no token, expected at least one");
  for (const std::int32_t token : request.prompt) {
    require(token >= 0 && token < vocabulary, place, "prompt: found token ", token,
            ", expected less than the model's vocabulary of ", vocabulary);
  }
  require(request.max_tokens > 0, place, "max_tokens: found ", request.max_tokens, ", expected at least 1");
  const std::int64_t room = state_->options.max_tokens, given = static_cast<std::int64_t>(request.prompt.size());
  require(given <= room && request.max_tokens <= room - given, place, "found a prompt of ", given, " tokens and ",
          request.max_tokens, " new ones, expected at most ", room, " together");
  check_sampling(request.sampling, place);
  state_->queue.emplace_back(state_->next_id, std::move(request));
  return state_->next_id++;
}

std::vector<Event> Engine::step() {
  State& state = *state_;
  state.admit();
  if (!state.running.empty()) {
    state.plan();
    state.run();
  }
  std::vector<Event> events = std::exchange(state.events, {});
  std::stable_sort(events.begin(), events.end(), [](const Event& a, const Event& b) { return a.request < b.request; });
  return events;
}

void Engine::cancel(std::int64_t request) {
  State& state = *state_;
  const auto report = [&] { state.events.push_back({request, Event::Kind::finished, -1, 0, Event::Reason::cancelled}); };
  const auto queued =
      std::find_if(state.queue.begin(), state.queue.end(), [&](const auto& entry) { return entry.first == request; });
  if (queued != state.queue.end()) {
    state.queue.erase(queued);
    return report();
  }
  const auto running =
      std::find_if(state.running.begin(), state.running.end(), [&](const auto& sequence) { return sequence->id == request; });
  if (running == state.running.end()) return;
  state.pool.release((*running)->lease);
  state.running.erase(running);
  report();
}

bool Engine::idle() const {
  return state_->queue.empty() && state_->running.empty() && state_->events.empty();
}

std::int64_t Engine::pending() const {
  return static_cast<std::int64_t>(state_->queue.size() + state_->running.size());
}

std::string to_string(Event::Reason reason) {
  switch (reason) {
    case Event::Reason::none:
      return "none";
    case Event::Reason::stop:
      return "stop";
    case Event::Reason::length:
      return "length";
    case Event::Reason::cancelled:
      return "cancelled";
  }
  MOLT_CHECK(false, "a reason without a name");
}

}  // namespace molt
