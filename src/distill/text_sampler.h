// Texts that a model in training writes: one engine, with its caches and recorded steps, for all of a run's batches.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "infer/engine.h"
#include "model/model.h"

namespace molt {

class TextSampler {
 public:
  using Tokens = std::vector<std::int32_t>;

  // The model must outlive the sampler. Its weights may change between calls where they lie, as an optimizer changes them.
  explicit TextSampler(const Model& model) : model_(model) {}

  // Each request's prompt with its new tokens behind it. At most `max_sequences` of them are written at a time. A failure
  // (Engine::step's) gives up the engine.
  std::vector<Tokens> texts(const std::vector<Request>& requests, std::int64_t max_sequences);

  // How many engines were made. Another one is made when requests come that need more room than any before (room grows by powers
  // of two), or when a weight lies elsewhere than before: recorded steps have its address.
  std::int64_t engines_made() const { return made_; }

  const Model& model() const { return model_; }
  // The sequences and tokens of one that an engine is given for requests of so many.
  static EngineOptions room_for(std::int64_t sequences, std::int64_t tokens, std::int64_t max_sequences);

 private:
  std::unique_ptr<Engine> take_engine(const EngineOptions& needed);

  const Model& model_;
  EngineOptions room_{.max_sequences = 0, .max_tokens = 0};  // of the engine
  std::vector<const void*> addresses_;                       // of the weights that it was made with
  std::unique_ptr<Engine> engine_;
  std::int64_t made_ = 0;
};

}  // namespace molt
