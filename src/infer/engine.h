// Generation of many sequences. What generate, evaluate, rank and later serve use: submit, step, cancel. Behind it a batched loop
// over a cache pool; a paged scheduler can take its place without a change here.
//
//   Engine engine(model, {.max_sequences = 8, .max_tokens = 512});
//   engine.submit({.prompt = {1, 403, 407}, .max_tokens = 100});
//   while (!engine.idle())
//     for (const Event& event : engine.step()) …
//
// Requests are admitted in the order in which they came, as soon as one of max_sequences places is free. Every admitted sequence
// that has read its prompt gets one token a step; beside them, prompts are read in the same order, prefill_tokens a step.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "infer/sampling.h"
#include "model/model.h"

namespace molt {

struct Request {
  std::vector<std::int32_t> prompt;  // at least one token
  std::int64_t max_tokens = 256;     // new tokens at most
  SamplingOptions sampling = {};
  std::vector<std::int32_t> stop_tokens =
      {};  // generation ends after one of them (it is not reported as text, but is in the event)
};

struct Event {
  enum class Kind { token, finished };
  enum class Reason { none, stop, length, cancelled };
  std::int64_t request;
  Kind kind;
  std::int32_t token = -1;       // kind token
  float log_probability = 0;     // of the token under the model at temperature 1
  Reason reason = Reason::none;  // kind finished
};

// "stop", "length", "cancelled", as they appear in files.
std::string to_string(Event::Reason reason);

struct EngineOptions {
  std::int64_t max_sequences = 32;     // decoded together
  std::int64_t max_tokens = 4096;      // cached tokens of one sequence at most (prompt + new)
  std::int64_t prefill_tokens = 2048;  // new prompt tokens of one step at most; longer prompts are prefilled in chunks
};

class Engine {
 public:
  // The model must outlive the engine, and must not change while requests are in flight. UserError for options below 1.
  Engine(const Model& model, const EngineOptions& options);
  ~Engine();

  // Queues a request and returns its number: 0, 1, … UserError if it cannot fit max_tokens, or asks for what does not exist.
  std::int64_t submit(Request request);
  // One forward pass over whatever is ready: new tokens and ends since the last call, in order of request. Empty when nothing is
  // queued.
  std::vector<Event> step();
  // Ends a request wherever it stands: step() reports it once more, as finished. Nothing happens to one that has ended.
  void cancel(std::int64_t request);
  // Nothing is queued, running or still to be reported.
  bool idle() const;
  // Queued or running.
  std::int64_t pending() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace molt
