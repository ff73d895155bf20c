// Prompts in, texts out: the engine with a tokenizer around it. What generate, chat, evaluate and rank call.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "infer/engine.h"
#include "text/tokenizer.h"

namespace molt {

struct TextRequest {
  std::string prompt = {};
  std::vector<std::int32_t> tokens = {};  // the prompt as ids; `prompt` is not read when there are any
  std::int64_t max_tokens = 256;          // new tokens at most
  SamplingOptions sampling = {};
  std::vector<std::string> stop = {};  // the text ends before the first of them that appears
  bool ignore_end = false;             // go on after the tokenizer's stop tokens
};

// The i-th of several samples of one request: the same with a seed of its own (the request's own for the first).
TextRequest sample_of(const TextRequest& request, std::int64_t i);

// What was generated. prompt + text is the whole text: a space between the two is part of `text`.
struct GeneratedText {
  std::string text;                      // without the stop string or stop token that ended it
  std::vector<std::int32_t> tokens;      // all new ones, a stop token among them
  std::vector<float> log_probabilities;  // one a token, at temperature 1
  std::int64_t prompt_tokens = 0;
  Event::Reason reason = Event::Reason::none;
};

struct TextEvent {
  std::int64_t request;
  std::string piece;  // new text, whole UTF-8; may be empty
  bool finished = false;
  GeneratedText result;  // when finished
};

// A stop string's beginning is held back until it is clear that it is none, so that pieces, joined, are the final text.
class TextGenerator {
 public:
  // The model must outlive the generator.
  TextGenerator(const Model& model, std::shared_ptr<const Tokenizer> tokenizer, const EngineOptions& options);
  ~TextGenerator();

  // The prompt's ids as submit() uses them.
  std::vector<std::int32_t> encode(const TextRequest& request) const;
  // Queues a request and returns its number. UserError as Engine::submit, and for an empty stop string. The first one that may
  // pass the model's max_positions is warned of: hybrids and scaled rotary embeddings may well go on there.
  std::int64_t submit(const TextRequest& request);
  // One step of the engine: what is new, in order of request.
  std::vector<TextEvent> step();
  // Ends a request; step() reports it as finished.
  void cancel(std::int64_t request);
  bool idle() const;
  std::int64_t pending() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// All requests together, `max_sequences` at a time; an engine of just the size that they need is made for them. Results in order
// of request. `on_event`, if given, sees everything as it comes, with TextEvent::request counting requests from 0. A signal
// (base/interrupt.h) throws Interrupted between steps.
std::vector<GeneratedText> generate_texts(const Model& model, std::shared_ptr<const Tokenizer> tokenizer,
                                          const std::vector<TextRequest>& requests, std::int64_t max_sequences = 32,
                                          const std::function<void(const TextEvent&)>& on_event = {});

}  // namespace molt
