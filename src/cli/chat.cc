#include <atomic>
#include <csignal>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "base/counted.h"
#include "base/error.h"
#include "base/log.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "formats/hugging_face.h"
#include "formats/peft.h"
#include "infer/text_generation.h"
#include "text/chat_template.h"

namespace molt {
namespace chat {

struct Options {
  std::string model;
  std::int64_t max_tokens = 0, context = 0;
  SamplingOptions sampling{.temperature = 0.7};
  std::int64_t seed = 0;
  std::vector<std::string> stop;
  ComputeOptions compute;
};

std::atomic<bool> stop_asked{false};
static_assert(std::atomic<bool>::is_always_lock_free, "a signal handler may only touch lock-free atomics");

// While it lives, Ctrl-C only asks for a stop; a second one, and any at the prompt, ends the program as always.
class StopOnInterrupt {
 public:
  StopOnInterrupt() {
    stop_asked = false;
    struct sigaction action = {};
    action.sa_handler = [](int) { stop_asked = true; };
    action.sa_flags = SA_RESTART | static_cast<int>(SA_RESETHAND);
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, nullptr);
  }
  ~StopOnInterrupt() { std::signal(SIGINT, SIG_DFL); }
  StopOnInterrupt(const StopOnInterrupt&) = delete;
  StopOnInterrupt& operator=(const StopOnInterrupt&) = delete;
};

// Prints the answer as it comes and returns it.
std::string answer(TextGenerator& generator, const TextRequest& request) {
  StopOnInterrupt stoppable;
  const std::int64_t id = generator.submit(request);
  std::string text;
  bool cancelled = false;
  while (!generator.idle()) {
    if (stop_asked && !cancelled) generator.cancel(id), cancelled = true;
    for (const TextEvent& event : generator.step()) {
      std::cout << event.piece << std::flush;
      text += event.piece;
    }
  }
  std::cout << "\n" << std::flush;
  return text;
}

// What was said so far: messages that the model's chat template lays out, or plain text where it has none.
class Conversation {
 public:
  Conversation(const fs::path& folder, std::shared_ptr<const Tokenizer> tokenizer)
      : template_(ChatTemplate::read(folder)), tokenizer_(std::move(tokenizer)) {}

  bool has_template() const { return template_.has_value(); }
  void reset() { *this = Conversation(std::move(template_), tokenizer_); }

  // The tokens up to where the model answers, with this line as the user's next one; remembered once an answer is there.
  std::vector<std::int32_t> ask(const std::string& line) {
    question_ = line;
    if (!template_) return tokenizer_->encode(text_ + (text_.empty() ? "" : "\n") + line);
    OrderedJson messages = messages_;
    messages.push_back({{"role", "user"}, {"content", line}});
    return tokenizer_->encode(template_->render({.messages = messages, .add_generation_prompt = true}).text, false);
  }
  void answer(const std::string& text) {
    text_ += (text_.empty() ? "" : "\n") + question_ + text;
    messages_.push_back({{"role", "user"}, {"content", question_}});
    messages_.push_back({{"role", "assistant"}, {"content", text}});
  }

 private:
  Conversation(std::optional<ChatTemplate> chat_template, std::shared_ptr<const Tokenizer> tokenizer)
      : template_(std::move(chat_template)), tokenizer_(std::move(tokenizer)) {}

  std::optional<ChatTemplate> template_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::string question_, text_;
  OrderedJson messages_ = OrderedJson::array();
};

// The tokens of the conversation with this line; empty, and the reason printed, where it does not fit.
std::vector<std::int32_t> tokens_with(Conversation& conversation, const std::string& line, std::int64_t most) {
  std::vector<std::int32_t> tokens;
  try {
    tokens = conversation.ask(line);
  } catch (const UserError& error) {
    std::cerr << error.what() << "\n";
    return {};
  }
  if (std::ssize(tokens) <= most) return tokens;
  std::cerr << "the conversation has " << counted(std::ssize(tokens), "token") << ", at most " << most
            << " fit: /reset forgets it, --context makes more room\n";
  return {};
}

constexpr const char* kHelp = "/reset forgets the conversation, /quit (or Ctrl-D) ends. Ctrl-C stops an answer.\n";
constexpr const char* kWithTemplate = "The model's chat template lays out the conversation.\n";
constexpr const char* kWithoutTemplate = "The model goes on with the text of the conversation as it stands.\n";

int run(Options& options) {
  const fs::path folder = resolve_model_folder(options.model);
  const fs::path texts = tokenizer_folder(folder);
  const auto tokenizer = Tokenizer::load(texts);
  const auto model = load_model(folder, {options.compute.device(), options.compute.dtype()});
  std::int64_t room = options.context;
  if (room == 0) room = model->config().max_positions > 0 ? std::min<std::int64_t>(model->config().max_positions, 8192) : 4096;
  const std::int64_t max_tokens = options.max_tokens != 0 ? options.max_tokens : std::min<std::int64_t>(512, room / 2);
  require(max_tokens > 0, "--max-tokens: found ", max_tokens, ", expected at least 1");
  require(room > max_tokens, "--context: found ", room, ", expected more than --max-tokens ", max_tokens);
  TextGenerator generator(*model, tokenizer, {.max_sequences = 1, .max_tokens = room});
  Conversation conversation(texts, tokenizer);

  TextRequest request{.max_tokens = max_tokens, .sampling = options.sampling, .stop = options.stop};
  request.sampling.seed = static_cast<std::uint64_t>(options.seed);
  log_info(concat(options.model, ": /help says what can be typed"));
  std::string line;
  while (std::cerr << "> " << std::flush, std::getline(std::cin, line)) {
    if (line == "/quit") return 0;
    if (line == "/help") {
      std::cerr << kHelp << (conversation.has_template() ? kWithTemplate : kWithoutTemplate);
    } else if (line == "/reset") {
      conversation.reset();
    } else if (line.starts_with("/")) {
      std::cerr << "found " << line << ", expected /help, /reset or /quit\n";
    } else if (!line.empty()) {
      request.tokens = tokens_with(conversation, line, room - max_tokens);
      if (request.tokens.empty()) continue;
      conversation.answer(answer(generator, request));
      ++request.sampling.seed;
    }
  }
  std::cerr << "\n";
  return 0;
}

}  // namespace chat

Command chat_command() {
  return {"chat", "Talk to a model in the terminal", [](Arguments& arguments) -> std::function<int()> {
            auto options = std::make_shared<chat::Options>();
            arguments.positional("MODEL", options->model, "Hugging Face folder, checkpoint or run");
            arguments.option("--max-tokens", options->max_tokens,
                             "New tokens of an answer at most (default: 512, or half of a shorter --context)");
            arguments.option("--context", options->context,
                             "Tokens of the whole conversation at most (default: what the model allows, up to 8192)");
            arguments.option("--temperature", options->sampling.temperature, "0 always takes the most probable token");
            arguments.option("--top-k", options->sampling.top_k, "Only the k most probable tokens, 0 for all");
            arguments.option("--top-p", options->sampling.top_p, "Only the most probable tokens that reach this sum");
            arguments.option("--seed", options->seed, "Another seed gives other answers");
            arguments.option("--stop", options->stop, "Text that ends an answer; may be repeated");
            options->compute.declare(arguments);
            return [options] { return chat::run(*options); };
          }};
}

}  // namespace molt
