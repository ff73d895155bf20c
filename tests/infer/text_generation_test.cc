// Texts from prompts: pieces join to what the tokens decode to, stop strings, samples, files that are continued.
#include "infer/text_generation.h"

#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json.h"
#include "infer/generate_file.h"
#include "support/error_of.h"
#include "support/temporary_folder.h"
#include "text/word_tokenizer.h"
#include "tiny_models.h"

namespace molt {
namespace text_generation_test {

// Its vocabulary is the tiny models', its stop token 2.
std::shared_ptr<const Tokenizer> tiny_tokenizer() {
  static const auto tokenizer = [] {
    const TemporaryFolder folder;
    write_file(folder.path() / "tokenizer.json", make_word_tokenizer({"one", "two", "red"}));
    write_file(folder.path() / "tokenizer_config.json", word_tokenizer_config());
    return Tokenizer::load(folder.path());
  }();
  return tokenizer;
}

const Model& tiny() {
  static const auto model = testing_infer::tiny_hybrid();
  return *model;
}

TextRequest request_for(const std::string& prompt, std::int64_t max_tokens = 24) {
  TextRequest request;
  request.prompt = prompt;
  request.max_tokens = max_tokens;
  request.ignore_end = true;
  return request;
}

struct Streamed {
  std::map<std::int64_t, std::string> pieces;
  std::vector<GeneratedText> results;
};

Streamed generate(const std::vector<TextRequest>& requests, std::int64_t max_sequences = 32) {
  Streamed streamed;
  streamed.results = generate_texts(tiny(), tiny_tokenizer(), requests, max_sequences,
                                    [&](const TextEvent& event) { streamed.pieces[event.request] += event.piece; });
  return streamed;
}

TEST(TextGeneration, PiecesJoinToTheTextAndTokensDecodeToIt) {
  const auto tokenizer = tiny_tokenizer();
  const auto streamed = generate({request_for("one two"), request_for("two"), request_for("12")}, 2);
  for (std::size_t i = 0; i < 3; ++i) {
    const GeneratedText& result = streamed.results[i];
    EXPECT_EQ(streamed.pieces.at(static_cast<std::int64_t>(i)), result.text);
    EXPECT_EQ(result.tokens.size(), 24u);
    EXPECT_EQ(result.log_probabilities.size(), 24u);
    EXPECT_EQ(result.reason, Event::Reason::length);
    const std::string prompt = std::vector<std::string>{"one two", "two", "12"}[i];
    std::vector<std::int32_t> all = tokenizer->encode(prompt);
    EXPECT_EQ(result.prompt_tokens, std::ssize(all));
    all.insert(all.end(), result.tokens.begin(), result.tokens.end());
    EXPECT_EQ(prompt + result.text, tokenizer->decode(all));
  }
}

TEST(TextGeneration, WarnsOnceOfMoreThanTheModelsPositions) {
  const auto warnings = [](const std::vector<TextRequest>& requests) {
    testing::internal::CaptureStderr();
    generate(requests);
    const std::string said = testing::internal::GetCapturedStderr();
    std::size_t count = 0;
    for (std::size_t at = said.find("max_position_embeddings"); at != said.npos;
         at = said.find("max_position_embeddings", at + 1))
      ++count;
    return std::pair(count, said);
  };
  TextRequest fits = request_for("", 12), passes = request_for("", 13);
  fits.tokens = passes.tokens = testing_infer::tiny_prompt(500);  // of 512 positions
  EXPECT_EQ(warnings({fits, fits}).first, 0u);
  const auto [count, said] = warnings({fits, passes, passes});
  EXPECT_EQ(count, 1u) << said;
  EXPECT_NE(said.find("a prompt of 500 tokens and up to 13 after it pass the 512 positions"), std::string::npos) << said;
}

TEST(TextGeneration, EndsBeforeAStopString) {
  const std::string free = generate({request_for("one")}).results[0].text;
  ASSERT_GT(free.size(), 8u) << free;
  const std::string stop = free.substr(free.size() / 2, 3);
  TextRequest request = request_for("one");
  request.stop = {"never there", stop};
  const auto streamed = generate({request, request_for("one")});
  EXPECT_EQ(streamed.results[0].text, free.substr(0, free.find(stop)));
  EXPECT_EQ(streamed.pieces.at(0), streamed.results[0].text);
  EXPECT_EQ(streamed.results[0].reason, Event::Reason::stop);
  EXPECT_LT(streamed.results[0].tokens.size(), 24u);
  EXPECT_EQ(streamed.results[1].text, free);
}

TEST(TextGeneration, EndsAtTheTokenizersStopTokenUnlessToldToGoOn) {
  ASSERT_EQ(tiny_tokenizer()->stop_tokens(), std::vector<std::int32_t>{2});
  TextRequest request = request_for("one", 300);
  request.sampling = {.temperature = 4, .seed = 5};
  TextRequest ending = request;
  ending.ignore_end = false;
  const auto results = generate({request, ending}).results;
  const auto& free = results[0].tokens;
  const auto end = std::find(free.begin(), free.end(), 2);
  ASSERT_NE(end, free.end());
  EXPECT_EQ(free.size(), 300u);
  EXPECT_EQ(results[1].tokens, std::vector(free.begin(), end + 1));
  EXPECT_EQ(results[1].reason, Event::Reason::stop);
  EXPECT_EQ(results[1].text, results[0].text.substr(0, results[1].text.size()));
}

TEST(TextGeneration, SamplesDifferAndRepeat) {
  TextRequest request = request_for("one two");
  request.sampling = {.temperature = 1.5, .seed = 7};
  const std::vector<TextRequest> samples = {sample_of(request, 0), sample_of(request, 1), sample_of(request, 2)};
  const auto together = generate(samples), again = generate({samples[2], samples[0]}, 1);
  EXPECT_EQ(samples[0].sampling.seed, 7u);
  EXPECT_NE(together.results[0].tokens, together.results[1].tokens);
  EXPECT_NE(together.results[1].tokens, together.results[2].tokens);
  EXPECT_EQ(again.results[0].tokens, together.results[2].tokens);
  EXPECT_EQ(again.results[1].tokens, together.results[0].tokens);
}

TEST(TextGeneration, CancelEndsARequestWithWhatItHas) {
  TextGenerator generator(tiny(), tiny_tokenizer(), {.max_sequences = 1, .max_tokens = 64});
  const std::int64_t first = generator.submit(request_for("one")), second = generator.submit(request_for("two", 3));
  for (int i = 0; i < 4; ++i) generator.step();
  generator.cancel(first);
  std::map<std::int64_t, GeneratedText> results;
  while (!generator.idle()) {
    for (TextEvent& event : generator.step()) {
      if (event.finished) results[event.request] = event.result;
    }
  }
  EXPECT_EQ(results.at(first).reason, Event::Reason::cancelled);
  EXPECT_EQ(results.at(first).tokens.size(), 4u);
  EXPECT_EQ(results.at(second).reason, Event::Reason::length);
}

TEST(TextGeneration, RefusesAnEmptyStopString) {
  TextRequest request = request_for("one");
  request.stop = {""};
  EXPECT_THROW(generate({request}), UserError);
}

class GenerateFile : public testing::Test {
 protected:
  void write(const std::string& name, const std::string& text) { std::ofstream(folder.path() / name) << text; }
  std::string text_of(const std::string& name) { return read_file(folder.path() / name); }
  GenerateFileOptions options() {
    return {.input = folder.path() / "in.jsonl",
            .output = folder.path() / "out.jsonl",
            .request = request_for(""),
            .samples = 2,
            .max_sequences = 3};
  }
  GenerateFileResult run(const GenerateFileOptions& with) { return generate_file(tiny(), tiny_tokenizer(), with); }
  std::string error(const std::string& input) {
    write("in.jsonl", input);
    return molt::error_of([&] { run(options()); });
  }

  TemporaryFolder folder;
};

TEST_F(GenerateFile, KeepsFieldsAndOrderAndContinuesWhereItStopped) {
  write("in.jsonl",
        "{\"id\": 1, \"prompt\": \"one\", \"completion\": \"gold\"}\n\n{\"id\": 2, \"prompt\": \"two one\"}\n{\"tokens\": [1, 5, "
        "9]}\n");
  GenerateFileOptions with = options();
  with.request.sampling = {.temperature = 1, .seed = 3};
  EXPECT_EQ(run(with).written, 6);
  const std::string whole = text_of("out.jsonl");
  LineReader reader(folder.path() / "out.jsonl");
  std::string_view line;
  for (int i = 0; i < 6; ++i) {
    ASSERT_TRUE(reader.next(line));
    const Json out = parse_json(line, "out");
    EXPECT_EQ(out.at("sample"), i % 2);
    EXPECT_EQ(out.value("id", 3), i / 2 + 1);
    EXPECT_EQ(out.at("completion_tokens"), 24);
    EXPECT_EQ(out.at("finish_reason"), "length");
    EXPECT_LT(out.at("log_probability"), 0);
    if (i < 2) {
      EXPECT_EQ(out.at("reference"), "gold");
    }
  }

  // Three whole lines and a torn one are there.
  std::size_t end = 0;
  for (int i = 0; i < 3; ++i) end = whole.find('\n', end) + 1;
  write("out.jsonl", whole.substr(0, end + 10));
  const GenerateFileResult rest = run(with);
  EXPECT_EQ(rest.found, 3);
  EXPECT_EQ(rest.written, 3);
  EXPECT_EQ(text_of("out.jsonl"), whole);
  EXPECT_EQ(run(with).written, 0);
}

TEST_F(GenerateFile, NamesTheLineThatIsWrong) {
  EXPECT_NE(error("{\"prompt\": \"one\"}\n{\"text\": \"x\"}\n").find("in.jsonl:2: found neither"), std::string::npos);
  EXPECT_NE(error("{\"prompt\": 5}\n").find("in.jsonl:1"), std::string::npos);
  EXPECT_NE(error("[1]\n").find("in.jsonl:1: found no object"), std::string::npos);
  EXPECT_NE(error("{\"tokens\": [67]}\n").find("found token 67"), std::string::npos);
  EXPECT_NE(error("").find("found no line"), std::string::npos);
  EXPECT_FALSE(fs::exists(folder.path() / "out.jsonl"));
  write("out.jsonl", "{\"prompt\": \"another\", \"completion\": \"\"}\n");
  EXPECT_NE(error("{\"prompt\": \"one\"}\n").find("out.jsonl:1: found another prompt"), std::string::npos);
}

}  // namespace text_generation_test
}  // namespace molt
