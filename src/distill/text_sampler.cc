#include "distill/text_sampler.h"

#include <algorithm>
#include <bit>

namespace molt {
namespace text_sampling {

std::vector<const void*> addresses_of(const Model& model) {
  std::vector<const void*> addresses;
  auto& self = const_cast<Model&>(model);  // visit() hands tensors out to be replaced; here they are only read
  self.visit([&](const std::string&, at::Tensor& value) { addresses.push_back(value.const_data_ptr()); });
  return addresses;
}

std::int64_t power_of_two(std::int64_t least) {
  return static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(least)));
}

}  // namespace text_sampling

EngineOptions TextSampler::room_for(std::int64_t sequences, std::int64_t tokens, std::int64_t max_sequences) {
  EngineOptions room;
  room.max_sequences = std::min(text_sampling::power_of_two(sequences), max_sequences);
  room.max_tokens = std::max<std::int64_t>(2, text_sampling::power_of_two(tokens));
  return room;
}

std::unique_ptr<Engine> TextSampler::take_engine(const EngineOptions& needed) {
  std::vector<const void*> addresses = text_sampling::addresses_of(model_);
  const bool fits = needed.max_sequences <= room_.max_sequences && needed.max_tokens <= room_.max_tokens;
  if (engine_ && fits && addresses == addresses_) return std::move(engine_);
  engine_.reset();  // before the next one takes memory
  room_.max_sequences = std::max(room_.max_sequences, needed.max_sequences);
  room_.max_tokens = std::max(room_.max_tokens, needed.max_tokens);
  addresses_ = std::move(addresses);
  ++made_;
  return std::make_unique<Engine>(model_, room_);
}

std::vector<TextSampler::Tokens> TextSampler::texts(const std::vector<Request>& requests, std::int64_t max_sequences) {
  std::vector<Tokens> texts;
  std::int64_t longest = 0;
  for (const Request& request : requests) {
    texts.push_back(request.prompt);
    longest = std::max(longest, std::ssize(request.prompt) + request.max_tokens);
  }
  if (texts.empty()) return texts;
  std::unique_ptr<Engine> engine = take_engine(room_for(std::ssize(requests), longest, max_sequences));
  std::int64_t first = -1;
  for (const Request& request : requests) {
    const std::int64_t number = engine->submit(request);
    if (first < 0) first = number;
  }
  while (!engine->idle()) {
    for (const Event& event : engine->step()) {
      if (event.kind == Event::Kind::token) texts[static_cast<std::size_t>(event.request - first)].push_back(event.token);
    }
  }
  engine_ = std::move(engine);
  return texts;
}

}  // namespace molt
