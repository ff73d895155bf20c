#include "infer/engine.h"

#include <algorithm>
#include <deque>
#include <iterator>
#include <utility>

#include "base/counted.h"
#include "base/error.h"
#include "infer/cache_pool.h"
#include "infer/step_runner.h"

namespace molt {
namespace engine_detail {

struct Sequence {
  std::int64_t id;
  Request request;
  CachePool::Lease lease;
  std::int64_t cached = 0;     // tokens in the cache when every step that was started has ended
  std::int64_t drawn = 0;      // tokens that those steps draw; the last is not in the cache yet
  std::int64_t generated = 0;  // of them those that are known
  std::int32_t last = -1;      // the last one known
  std::int32_t place = -1;     // which of those that the last step drew is this sequence's
  bool done = false;

  std::int64_t prompt_left() const { return static_cast<std::int64_t>(request.prompt.size()) - cached; }
};

const EngineOptions& checked(const EngineOptions& options) {
  require(options.max_sequences > 0, "max_sequences: found ", options.max_sequences, ", expected at least 1");
  require(options.max_tokens > 1, "max_tokens: found ", options.max_tokens, ", expected at least 2");
  require(options.prefill_tokens > 0, "prefill_tokens: found ", options.prefill_tokens, ", expected at least 1");
  return options;
}

}  // namespace engine_detail

struct Engine::State {
  using Sequence = engine_detail::Sequence;

  State(const Model& the_model, const EngineOptions& the_options)
      : model(the_model),
        options(engine_detail::checked(the_options)),
        pool(model, options.max_sequences, options.max_tokens),
        runner(model, pool) {}

  // What is run as one pass through the model.
  struct Flight {
    std::vector<SampledItem> items;
    std::vector<std::shared_ptr<Sequence>> sequences;  // one an item
  };

  void admit();
  // Chooses the next step's tokens, and starts it; false if there is nothing to do.
  bool start();
  // Waits for the oldest step that was started.
  void finish();
  void take(Sequence& sequence, std::int32_t token, float log_probability);

  const Model& model;
  EngineOptions options;
  CachePool pool;
  StepRunner runner;
  std::int64_t next_id = 0;
  std::deque<std::pair<std::int64_t, Request>> queue;
  std::vector<std::shared_ptr<Sequence>> running;  // in order of request
  std::vector<Event> events;                       // to be reported
  std::deque<Flight> flights;                      // steps that were started
};

void Engine::State::admit() {
  while (!queue.empty()) {
    auto lease = pool.acquire();
    if (!lease) return;
    running.push_back(std::make_shared<Sequence>(queue.front().first, std::move(queue.front().second), std::move(*lease)));
    queue.pop_front();
  }
}

bool Engine::State::start() {
  Flight flight;
  std::int64_t prefill_left = options.prefill_tokens;
  std::int32_t place = 0;
  for (const auto& sequence : running) {
    const std::int64_t prompt_left = sequence->prompt_left();
    if (prompt_left <= 0 && sequence->drawn == sequence->request.max_tokens) continue;
    SampledItem item{{std::span<const std::int32_t>(&sequence->last, 1), -1, sequence->cached, &sequence->lease}};
    if (prompt_left > 0) {
      const std::int64_t count = std::min(prompt_left, prefill_left);
      if (count == 0) continue;
      prefill_left -= count;
      item.tokens = std::span(sequence->request.prompt)
                        .subspan(static_cast<std::size_t>(sequence->cached), static_cast<std::size_t>(count));
    } else if (sequence->drawn > sequence->generated) {
      item.follows = sequence->place;
    }
    sequence->cached += std::ssize(item.tokens);
    item.draw = sequence->drawn;
    if (sequence->prompt_left() <= 0) {
      item.sampling = &sequence->request.sampling;
      sequence->place = place++;
      ++sequence->drawn;
    }
    flight.items.push_back(item);
    flight.sequences.push_back(sequence);
  }
  if (flight.items.empty()) return false;
  flights.push_back(std::move(flight));
  runner.start(flights.back().items);
  return true;
}

void Engine::State::finish() {
  Flight flight = std::move(flights.front());
  flights.pop_front();
  runner.finish(flight.items);
  for (std::size_t i = 0; i < flight.items.size(); ++i) {
    const SampledItem& item = flight.items[i];
    if (item.sampling && !flight.sequences[i]->done) take(*flight.sequences[i], item.token, item.log_probability);
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
  require(given <= room && request.max_tokens <= room - given, place, "found a prompt of ", counted(given, "token"), " and ",
          request.max_tokens, " new ones, expected at most ", room, " together");
  check_sampling(request.sampling, place);
  state_->queue.emplace_back(state_->next_id, std::move(request));
  return state_->next_id++;
}

std::vector<Event> Engine::step() {
  State& state = *state_;
  state.admit();
  if (state.flights.empty()) state.start();
  // While the host looks at what this step draws, the next one runs already. It may draw one token too many for a sequence that
  // turns out to have ended, which nobody sees.
  if (state.runner.overlaps() && !state.flights.empty()) state.start();
  if (!state.flights.empty()) state.finish();
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
  (*running)->done = true;
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
