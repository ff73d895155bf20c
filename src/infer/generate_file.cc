#include "infer/generate_file.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <utility>

#include "base/counted.h"
#include "base/error.h"
#include "base/interrupt.h"
#include "base/json.h"
#include "base/progress.h"
#include "base/random.h"
#include "text/chat_template.h"

namespace molt {
namespace generate_file_detail {

struct Line {
  OrderedJson fields;
  std::string place;
};

// The next line that is not empty.
bool read(LineReader& reader, Line& line) {
  std::string_view text;
  do {
    if (!reader.next(text)) return false;
  } while (text.empty());
  line.place = reader.place();
  line.fields = parse_ordered_json(text, line.place);
  require(line.fields.is_object(), line.place,
          ": found no object, expected {\"prompt\": …}, {\"tokens\": […]} or {\"messages\": […]}");
  return true;
}

// What a line gives the model to go on from, the first that it has.
const char* prompt_key(const OrderedJson& fields) {
  for (const char* key : {"prompt", "tokens", "messages"}) {
    if (fields.contains(key)) return key;
  }
  return nullptr;
}

// Messages to tokens. The template is read when it is needed: prompts do without it, whatever it holds.
class MessageEncoder {
 public:
  MessageEncoder(const Tokenizer& tokenizer, const fs::path& folder) : tokenizer_(tokenizer), folder_(folder) {}

  // The template writes the special tokens itself, the one that begins a text among them.
  std::vector<std::int32_t> encode(const Line& line) {
    if (!template_ && !folder_.empty()) template_ = ChatTemplate::read(folder_);
    require(template_.has_value(), line.place,
            ": messages: the model's folder has no chat template, expected \"prompt\" or \"tokens\"");
    const auto member = [&](const char* key) {
      const auto found = line.fields.find(key);
      return found == line.fields.end() || found->is_null() ? nullptr : &*found;
    };
    const ChatInput chat{.messages = line.fields.at("messages"),
                         .tools = member("tools"),
                         .documents = member("documents"),
                         .add_generation_prompt = true,
                         .variables = member("chat_template_kwargs")};
    try {
      return tokenizer_.encode(template_->render(chat).text, false);
    } catch (const UserError& error) {
      fail(line.place, ": ", error.what());
    }
  }

 private:
  const Tokenizer& tokenizer_;
  fs::path folder_;
  std::optional<ChatTemplate> template_;
};

TextRequest request_of(const Line& line, const GenerateFileOptions& options, MessageEncoder& messages, std::int64_t number) {
  TextRequest request = options.request;
  request.sampling.seed = derive_seed(options.request.sampling.seed, "line", static_cast<std::uint64_t>(number));
  const Json fields = line.fields;
  const char* given = prompt_key(line.fields);
  require(given, line.place, ": found neither \"prompt\" nor \"tokens\" nor \"messages\"");
  const std::string_view key = given;
  if (key == "prompt") {
    request.prompt = get<std::string>(fields, "prompt", line.place);
  } else if (key == "messages") {
    request.tokens = messages.encode(line);
    require(!request.tokens.empty(), line.place, ": messages: the chat template gives no text");
  } else {
    for (const std::int64_t token : get<std::vector<std::int64_t>>(fields, "tokens", line.place)) {
      request.tokens.push_back(static_cast<std::int32_t>(std::clamp<std::int64_t>(token, -1, INT32_MAX)));
    }
    require(!request.tokens.empty(), line.place, ": tokens: found none, expected at least one");
  }
  return request;
}

OrderedJson completed(const Line& line, const GeneratedText& result, const GenerateFileOptions& options, std::int64_t sample) {
  OrderedJson out = line.fields;
  if (const auto given = out.find("completion"); given != out.end()) {
    const OrderedJson reference = *given;
    out.erase("completion");
    if (!out.contains("reference")) out["reference"] = reference;
  }
  if (options.samples > 1) out["sample"] = sample;
  out["completion"] = result.text;
  out["finish_reason"] = to_string(result.reason);
  out["completion_tokens"] = result.tokens.size();
  out["log_probability"] = std::accumulate(result.log_probabilities.begin(), result.log_probabilities.end(), 0.0);
  return out;
}

// What the whole input asks for.
struct Survey {
  std::int64_t lines = 0;
  std::int64_t longest = 2;  // prompt and new tokens
  std::int64_t found = 0;    // lines that the output has
};

Survey survey(const Model& model, const Tokenizer& tokenizer, const GenerateFileOptions& options, MessageEncoder& messages) {
  Survey result;
  LineReader input(options.input);
  std::optional<LineReader> output;
  if (fs::is_regular_file(options.output)) output.emplace(options.output);  // a pipe or a device tells of no earlier run
  Line line, earlier;
  while (read(input, line)) {
    TextRequest request = request_of(line, options, messages, result.lines++);
    if (request.tokens.empty()) request.tokens = tokenizer.encode(request.prompt);
    require(!request.tokens.empty(), line.place, ": prompt: found no text, expected some");
    for (const std::int32_t token : request.tokens) {
      require(token >= 0 && token < model.config().vocabulary, line.place, ": found token ", token,
              ", expected less than the model's vocabulary of ", model.config().vocabulary);
    }
    result.longest = std::max(result.longest, std::ssize(request.tokens) + request.max_tokens);
    for (std::int64_t sample = 0; sample < options.samples && output && read(*output, earlier); ++sample, ++result.found) {
      const char* key = prompt_key(line.fields);
      const bool same = earlier.fields.contains(key) && earlier.fields[key] == line.fields[key] &&
                        earlier.fields.value("sample", std::int64_t{0}) == sample && earlier.fields.contains("completion");
      require(same, earlier.place, ": found another ", key, " or sample than ", line.place,
              " has, expected the output of an earlier run on this input (remove it, or name another)");
    }
  }
  require(result.lines > 0, options.input.string(), ": found no line, expected at least one");
  require(!output || !read(*output, earlier), options.output.string(), ": found more than ", counted(result.found, "line"),
          ", expected the output of an earlier run on ", options.input.string());
  return result;
}

}  // namespace generate_file_detail

GenerateFileResult generate_file(const Model& model, std::shared_ptr<const Tokenizer> tokenizer,
                                 const GenerateFileOptions& options) {
  using namespace generate_file_detail;
  MessageEncoder messages(*tokenizer, options.model_folder);
  std::optional<LineWriter> output;
  if (fs::exists(options.output)) output.emplace(options.output);  // cuts off a line that was torn
  const Survey whole = survey(model, *tokenizer, options, messages);
  if (!output) output.emplace(options.output);
  GenerateFileResult result{.found = whole.found};
  const std::int64_t total = whole.lines * options.samples;
  if (result.found == total) return result;

  struct Waiting {
    Line line;
    std::int64_t sample;
    std::optional<GeneratedText> text;
  };
  std::map<std::int64_t, Waiting> waiting;  // by request, which are numbered in order of the output
  EngineOptions engine;
  engine.max_sequences = std::min(options.max_sequences, total - result.found);
  engine.max_tokens = whole.longest;
  TextGenerator generator(model, tokenizer, engine);
  Progress progress("generate", total, "texts");
  progress.update(result.found);

  LineReader input(options.input);
  Line line;
  std::int64_t number = -1, next = 0;  // of the input's line; of the output's
  const auto submit_next = [&] {
    if (next % options.samples == 0) {
      read(input, line);
      ++number;
    }
    const std::int64_t sample = next++ % options.samples;
    if (next <= result.found) return;
    const std::int64_t id = generator.submit(sample_of(request_of(line, options, messages, number), sample));
    waiting.emplace(id, Waiting{line, sample, {}});
  };
  while (next < total || !generator.idle()) {
    throw_if_interrupted();
    while (next < total && generator.pending() < 2 * engine.max_sequences) submit_next();
    for (TextEvent& event : generator.step()) {
      if (!event.finished) continue;
      result.tokens += std::ssize(event.result.tokens);
      waiting.at(event.request).text = std::move(event.result);
    }
    for (auto first = waiting.begin(); first != waiting.end() && first->second.text; first = waiting.erase(first)) {
      output->append(to_line(completed(first->second.line, *first->second.text, options, first->second.sample)));
      progress.update(result.found + ++result.written, counted(result.tokens, "token"));
    }
  }
  return result;
}

}  // namespace molt
