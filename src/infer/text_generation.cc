#include "infer/text_generation.h"

#include <algorithm>
#include <map>
#include <utility>

#include "base/counted.h"
#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/random.h"
#include "infer/stop_strings.h"

namespace molt {
namespace text_generation_detail {

// One request's way from tokens to text.
class TextStream {
 public:
  TextStream(std::shared_ptr<const Tokenizer> tokenizer, const std::vector<std::int32_t>& prompt, const TextRequest& request)
      : decoder_(tokenizer),
        stops_(request.stop),
        stop_tokens_(request.ignore_end ? std::vector<std::int32_t>() : tokenizer->stop_tokens()) {
    result_.prompt_tokens = static_cast<std::int64_t>(prompt.size());
    read_prompt(*tokenizer, prompt);
  }

  const std::vector<std::int32_t>& stop_tokens() const { return stop_tokens_; }
  bool met_stop() const { return stops_.met(); }

  // Text that the token makes certain.
  std::string push(const Event& event) {
    result_.tokens.push_back(event.token);
    result_.log_probabilities.push_back(event.log_probability);
    const bool is_stop = std::find(stop_tokens_.begin(), stop_tokens_.end(), event.token) != stop_tokens_.end();
    return is_stop ? "" : add(decoder_.push(event.token));
  }
  // The rest of the text.
  std::string finish() {
    std::string piece = add(decoder_.finish());
    if (stops_.met()) return piece;
    const std::string held = stops_.finish();
    result_.text += held;
    return piece + held;
  }
  GeneratedText take(Event::Reason reason) {
    result_.reason = reason;
    return std::move(result_);
  }

 private:
  // The decoder goes through the prompt's end first, so that a new word after it keeps its space; that text is not ours.
  void read_prompt(const Tokenizer& tokenizer, const std::vector<std::int32_t>& prompt) {
    constexpr std::size_t enough = 16;
    const auto tail = std::span(prompt).last(std::min(enough, prompt.size()));
    std::string passed;
    for (const std::int32_t token : tail) passed += decoder_.push(token);
    const std::string whole = tokenizer.decode(tail);
    constexpr std::string_view half_character = "\xEF\xBF\xBD";  // U+FFFD: what a later token may still complete
    if (whole.starts_with(passed) && !whole.ends_with(half_character)) skip_ = whole.size() - passed.size();
  }

  std::string add(std::string text) {
    const std::size_t skipped = std::min(skip_, text.size());
    skip_ -= skipped;
    const std::string piece = stops_.push(std::string_view(text).substr(skipped));
    result_.text += piece;
    return piece;
  }

  StreamDecoder decoder_;
  StopStrings stops_;
  std::vector<std::int32_t> stop_tokens_;
  std::size_t skip_ = 0;  // bytes of the prompt's text that the decoder holds
  GeneratedText result_;
};

}  // namespace text_generation_detail

struct TextGenerator::State {
  using TextStream = text_generation_detail::TextStream;

  State(const Model& model, std::shared_ptr<const Tokenizer> the_tokenizer, const EngineOptions& options)
      : tokenizer(std::move(the_tokenizer)), positions(model.config().max_positions), engine(model, options) {}

  // Warns of the first request that may pass the positions of the model.
  void check_positions(std::int64_t prompt, std::int64_t more) {
    if (positions == 0 || prompt + more <= positions || warned_of_positions) return;
    warned_of_positions = true;
    log_warning(concat("a prompt of ", counted(prompt, "token"), " and up to ", more, " after it pass the ", positions,
                       " positions that the model is meant for (max_position_embeddings): what it writes there may be worse"));
  }

  std::shared_ptr<const Tokenizer> tokenizer;
  std::int64_t positions;  // 0: unknown
  bool warned_of_positions = false;
  Engine engine;
  std::map<std::int64_t, TextStream> streams;
};

TextRequest sample_of(const TextRequest& request, std::int64_t i) {
  TextRequest sample = request;
  if (i > 0) sample.sampling.seed = derive_seed(request.sampling.seed, "sample", static_cast<std::uint64_t>(i));
  return sample;
}

TextGenerator::TextGenerator(const Model& model, std::shared_ptr<const Tokenizer> tokenizer, const EngineOptions& options)
    : state_(std::make_unique<State>(model, std::move(tokenizer), options)) {}

TextGenerator::~TextGenerator() = default;

std::vector<std::int32_t> TextGenerator::encode(const TextRequest& request) const {
  return request.tokens.empty() ? state_->tokenizer->encode(request.prompt) : request.tokens;
}

std::int64_t TextGenerator::submit(const TextRequest& request) {
  for (const std::string& stop : request.stop) require(!stop.empty(), "stop: found an empty string, expected some text");
  std::vector<std::int32_t> prompt = encode(request);
  require(!prompt.empty(), "prompt: found no text, expected some (the model has no token that begins a text)");
  State::TextStream stream(state_->tokenizer, prompt, request);
  state_->check_positions(std::ssize(prompt), request.max_tokens);
  const std::int64_t id = state_->engine.submit({std::move(prompt), request.max_tokens, request.sampling, stream.stop_tokens()});
  state_->streams.emplace(id, std::move(stream));
  return id;
}

std::vector<TextEvent> TextGenerator::step() {
  std::vector<TextEvent> events;
  for (const Event& event : state_->engine.step()) {
    const auto found = state_->streams.find(event.request);
    if (found == state_->streams.end()) continue;  // ended by a stop string before
    State::TextStream& stream = found->second;
    if (events.empty() || events.back().request != event.request) events.push_back({event.request, {}, false, {}});
    TextEvent& news = events.back();
    if (event.kind == Event::Kind::token) news.piece += stream.push(event);
    const bool ended = event.kind == Event::Kind::finished;
    if (ended) news.piece += stream.finish();
    if (!ended && !stream.met_stop()) continue;
    if (!ended) state_->engine.cancel(event.request);
    news.finished = true;
    news.result = stream.take(stream.met_stop() ? Event::Reason::stop : event.reason);
    state_->streams.erase(found);
  }
  return events;
}

void TextGenerator::cancel(std::int64_t request) {
  state_->engine.cancel(request);
}

bool TextGenerator::idle() const {
  return state_->streams.empty();
}

std::int64_t TextGenerator::pending() const {
  return static_cast<std::int64_t>(state_->streams.size());
}

std::vector<GeneratedText> generate_texts(const Model& model, std::shared_ptr<const Tokenizer> tokenizer,
                                          const std::vector<TextRequest>& requests, std::int64_t max_sequences,
                                          const std::function<void(const TextEvent&)>& on_event) {
  std::vector<GeneratedText> results(requests.size());
  if (requests.empty()) return results;
  EngineOptions options;
  options.max_sequences = std::min(max_sequences, static_cast<std::int64_t>(requests.size()));
  options.max_tokens = 2;
  std::vector<TextRequest> encoded = requests;
  for (TextRequest& request : encoded) {
    if (request.tokens.empty()) request.tokens = tokenizer->encode(request.prompt);
    options.max_tokens = std::max(options.max_tokens, static_cast<std::int64_t>(request.tokens.size()) + request.max_tokens);
  }
  TextGenerator generator(model, std::move(tokenizer), options);
  for (const TextRequest& request : encoded) generator.submit(request);
  while (!generator.idle()) {
    throw_if_interrupted();
    for (TextEvent& event : generator.step()) {
      if (on_event) on_event(event);
      if (event.finished) results[static_cast<std::size_t>(event.request)] = std::move(event.result);
    }
  }
  return results;
}

}  // namespace molt
