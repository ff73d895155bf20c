#include "evaluate/evaluate.h"

#include <ATen/Functions.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "evaluate/perplexity.h"
#include "evaluate/traces.h"
#include "formats/hugging_face.h"
#include "support/error_of.h"
#include "support/temporary_folder.h"

namespace molt {
namespace evaluate_tests {

class EvaluateTest : public testing::Test {
 protected:
  void SetUp() override {
    const fs::path teacher = fs::path(MOLT_SOURCE) / "models/tiny-teacher";
    model_ = load_model(teacher);
    tokenizer_ = Tokenizer::load(teacher);
  }

  TemporaryFolder temporary_;
  const fs::path folder_ = temporary_.path();
  std::unique_ptr<Model> model_;
  std::shared_ptr<const Tokenizer> tokenizer_;
};

TEST_F(EvaluateTest, TheTinyTeacherSolvesItsProblems) {
  TaskConfig config;
  config.limit = 12;
  const auto task = make_task(config);
  EvaluateOptions options;
  options.output = folder_;
  const TaskScore whole = evaluate(*model_, tokenizer_, *task, options);
  EXPECT_EQ(whole.score.items(), 12);
  EXPECT_GE(whole.correct, 10);

  // With some samples lost, an evaluation answers those again and no others.
  std::vector<std::string> lines;
  {
    std::string_view line;
    for (LineReader reader(folder_ / "samples.jsonl"); reader.next(line);) lines.emplace_back(line);
  }
  ASSERT_EQ(lines.size(), 12u);
  std::ofstream(folder_ / "samples.jsonl") << lines[0] << "\n" << lines[1] << "\n" << lines[2].substr(0, 20);
  const TaskScore again = evaluate(*model_, tokenizer_, *task, options);
  EXPECT_EQ(again.correct, whole.correct);
  EXPECT_EQ(again.generated_tokens, whole.generated_tokens);

  options.identity = "another model";
  EXPECT_THROW(evaluate(*model_, tokenizer_, *task, options), UserError);
}

TEST_F(EvaluateTest, ContinuationsAreScoredOneByOneAsTogether) {
  const auto prompt = tokenizer_->encode("jan has 3 apples . how many apples does jan have ?");
  const auto continuation = [&](const char* text) { return tokenizer_->encode(text, false); };
  const auto single = continuation_log_probabilities(*model_, prompt, {continuation(" jan"), continuation(" apples")});
  EXPECT_GT(single[0], single[1]);
  // A second token sends the same first token through the other path: log p(first) + log p(second | first).
  const auto pair = continuation_log_probabilities(*model_, prompt, {continuation(" jan ="), continuation(" apples")});
  auto longer = prompt;
  longer.push_back(continuation(" jan")[0]);
  const auto second = continuation_log_probabilities(*model_, longer, {continuation(" =")});
  EXPECT_NEAR(pair[0], single[0] + second[0], 1e-4);
  EXPECT_NEAR(pair[1], single[1], 1e-4);
}

TEST_F(EvaluateTest, MoreSamplesAreAddedToThoseThatAreThere) {
  TaskConfig config;
  config.limit = 6;
  config.samples = 2;
  config.temperature = 1;
  config.seed = 5;
  const auto lines = [&] {
    std::multiset<std::string> found;
    LineReader reader(folder_ / "samples.jsonl");
    for (std::string_view line; reader.next(line);) found.emplace(line);
    return found;
  };
  EvaluateOptions options{.output = folder_};
  EXPECT_EQ(evaluate(*model_, tokenizer_, *make_task(config), options).samples, 12);
  const auto before = lines();
  config.samples = 4;
  const TaskScore more = evaluate(*model_, tokenizer_, *make_task(config), options);
  const auto after = lines();
  EXPECT_EQ(more.samples, 24);
  EXPECT_EQ(after.size(), 24u);
  EXPECT_TRUE(std::includes(after.begin(), after.end(), before.begin(), before.end()));
  EXPECT_EQ(more.pass.size(), 3u);  // k = 1, 2, 4
  EXPECT_DOUBLE_EQ(more.pass.at(1).accuracy(), more.score.accuracy());
  EXPECT_LE(more.pass.at(1).accuracy(), more.pass.at(4).accuracy());
  config.temperature = 0.5;
  EXPECT_THROW(evaluate(*model_, tokenizer_, *make_task(config), options), UserError);
}

TEST_F(EvaluateTest, TheChatFormNeedsATemplate) {
  TaskConfig config;
  config.limit = 2;
  config.form = "chat";
  config.system = "be brief";
  EXPECT_NE(error_of([&] { evaluate(*model_, tokenizer_, *make_task(config)); }).find("chat template"), std::string::npos);
  write_file(folder_ / "chat_template.jinja",
             "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}");
  EvaluateOptions options{.output = folder_ / "out", .template_folder = folder_};
  EXPECT_EQ(evaluate(*model_, tokenizer_, *make_task(config), options).samples, 2);
}

TEST_F(EvaluateTest, TracesAreTheRightSamplesOnce) {
  TaskConfig config;
  config.limit = 2;
  config.samples = 4;
  const auto task = make_task(config);
  const auto line = [&](std::size_t item, int sample, const char* text, bool correct, const char* reason = "stop") {
    return to_line(OrderedJson{{"id", task->items()[item].id},
                               {"sample", sample},
                               {"prompt", task->items()[item].prompt},
                               {"completion", text},
                               {"extracted", "1"},
                               {"correct", correct},
                               {"finish_reason", reason}}) +
           "\n";
  };
  write_file(folder_ / "samples.jsonl", line(1, 0, " b", false) + line(0, 1, " x  = 1 ", true) + line(0, 0, " x = 1", true) +
                                            line(0, 2, " y = 1", true) + line(0, 3, " z", true, "length"));
  const TraceCounts counts = write_traces(*task, folder_ / "samples.jsonl", folder_ / "traces.jsonl");
  EXPECT_EQ(counts.samples, 5);
  EXPECT_EQ(counts.wrong, 1);
  EXPECT_EQ(counts.unfinished, 1);
  EXPECT_EQ(counts.repeated, 1);
  EXPECT_EQ(counts.kept, 2);
  EXPECT_EQ(counts.solved, 1);
  LineReader reader(folder_ / "traces.jsonl");
  std::vector<std::string> kept;
  for (std::string_view text; reader.next(text);) {
    const Json trace = parse_json(text, reader.place());
    EXPECT_EQ(get<std::string>(trace, "prompt", ""), task->items()[0].prompt);
    kept.push_back(get<std::string>(trace, "completion", ""));
  }
  EXPECT_EQ(kept, (std::vector<std::string>{" x = 1", " y = 1"}));
}

TEST_F(EvaluateTest, TracesOfAConversationKeepTheThinkingApart) {
  write_file(folder_ / "items.jsonl", "{\"problem\": \"1 + 1\", \"answer\": \"2\"}\n");
  TaskConfig config;
  config.name = "math500";
  config.data = folder_ / "items.jsonl";
  config.form = "chat";
  const auto task = make_task(config);
  write_file(folder_ / "samples.jsonl", to_line(OrderedJson{{"id", task->items()[0].id},
                                                            {"prompt", "…"},
                                                            {"correct", true},
                                                            {"finish_reason", "stop"},
                                                            {"completion", "<think>\nhm\n</think>\n\\boxed{2}"}}) +
                                            "\n");
  EXPECT_EQ(write_traces(*task, folder_ / "samples.jsonl", folder_ / "traces.jsonl").kept, 1);
  const Json messages = read_json(folder_ / "traces.jsonl")["messages"];
  ASSERT_EQ(messages.size(), 2u);
  EXPECT_EQ(messages[1]["content"], "\\boxed{2}");
  EXPECT_EQ(messages[1]["reasoning_content"], "hm");
}

TEST_F(EvaluateTest, PerplexityIsThatOfTheWholeWhateverTheWindows) {
  const std::string text = "jan has 3 apples . ola has 2 times as many apples as jan . how many apples does ola have ?";
  write_file(folder_ / "a.txt", text);
  write_file(folder_ / "a.jsonl", to_line(OrderedJson{{"text", text}}) + "\n" + to_line(OrderedJson{{"text", text}}) + "\n");
  const auto tokens = tokenizer_->encode(text);
  const auto whole = measure_perplexity(*model_, *tokenizer_, folder_ / "a.txt", {});
  EXPECT_EQ(whole.tokens, std::ssize(tokens) - 1);
  EXPECT_EQ(whole.bytes, std::ssize(text));
  const auto first = std::vector(tokens.begin(), tokens.begin() + 1), rest = std::vector(tokens.begin() + 1, tokens.end());
  EXPECT_NEAR(whole.nats, -continuation_log_probabilities(*model_, first, {rest})[0], 1e-3);
  EXPECT_NEAR(whole.bits_per_byte() * std::log(2.0) * static_cast<double>(whole.bytes), whole.nats, 1e-9);
  const auto twice = measure_perplexity(*model_, *tokenizer_, folder_ / "a.jsonl", {});
  EXPECT_EQ(twice.texts, 2);
  EXPECT_NEAR(twice.loss(), whole.loss(), 1e-5);
  // Each token is predicted once also where windows overlap.
  const auto cut = measure_perplexity(*model_, *tokenizer_, folder_ / "a.txt", {.window = 8, .stride = 3});
  EXPECT_EQ(cut.tokens, whole.tokens);
  EXPECT_GT(cut.standard_error, 0);
  EXPECT_THROW(measure_perplexity(*model_, *tokenizer_, folder_ / "a.txt", {.window = 8, .stride = 8}), UserError);
}

// 40 texts of some 300 tokens: two packs.
TEST_F(EvaluateTest, PerplexityGoesOnAfterTheLastPack) {
  std::string lines, text;
  for (int i = 0; i < 20; ++i) text += "jan has 3 apples . ola has 2 times as many apples as jan . ";
  for (int i = 0; i < 40; ++i) lines += to_line(OrderedJson{{"text", concat(text, "how many apples are ", i, " ?")}}) + "\n";
  write_file(folder_ / "texts.jsonl", lines);
  const auto measure = [&](const fs::path& output, const std::string& identity = "a") {
    return measure_perplexity(*model_, *tokenizer_, folder_ / "texts.jsonl", {.output = output, .identity = identity});
  };
  const Perplexity whole = measure(folder_ / "whole");
  EXPECT_EQ(whole.nats, measure_perplexity(*model_, *tokenizer_, folder_ / "texts.jsonl", {}).nats);
  std::vector<std::string> packs;
  std::string_view line;
  for (LineReader reader(folder_ / "whole/windows.jsonl"); reader.next(line);) packs.emplace_back(line);
  ASSERT_GE(packs.size(), 2u);
  EXPECT_EQ(read_json(folder_ / "whole/score.json")["perplexity"], whole.perplexity());

  // The first pack is taken as it was found, the torn one is computed again.
  Json first = Json::parse(packs[0]);
  first["nats"][0] = first["nats"][0].get<double>() + 100;
  fs::create_directories(folder_ / "cut");
  write_file(folder_ / "cut/evaluation.json", read_file(folder_ / "whole/evaluation.json"));
  std::ofstream(folder_ / "cut/windows.jsonl") << to_line(first) << "\n" << packs[1].substr(0, 30);
  EXPECT_NEAR(measure(folder_ / "cut").nats, whole.nats + 100, 1e-6);
  std::ofstream(folder_ / "cut/windows.jsonl") << packs[0] << "\n";
  EXPECT_EQ(measure(folder_ / "cut").nats, whole.nats);
  EXPECT_EQ(measure(folder_ / "cut").standard_error, whole.standard_error);
  EXPECT_NE(error_of([&] { measure(folder_ / "cut", "b"); }).find("another model or task"), std::string::npos);
  std::ofstream(folder_ / "cut/windows.jsonl") << R"({"pack": 7, "nats": [1], "tokens": [1]})" << "\n";
  EXPECT_NE(error_of([&] { measure(folder_ / "cut"); }).find("windows.jsonl:1: found figures of other windows"),
            std::string::npos);
}

TEST_F(EvaluateTest, OtherWeightsInTheSameFolderAreNoticed) {
  export_model(*model_, folder_ / "model", {.like = fs::path(MOLT_SOURCE) / "models/tiny-teacher"});
  write_file(folder_ / "a.txt", "jan has 3 apples . how many apples does jan have ?");
  TaskConfig problems, text;
  problems.limit = 1;
  text.name = "perplexity";
  text.data = (folder_ / "a.txt").string();
  const auto score = [&](const TaskConfig& task, const fs::path& model) {
    EvaluateOptions options{.output = folder_ / task.name};
    set_model(options, model);
    return error_of([&] { evaluate_task(*load_model(model), tokenizer_, task, options); });
  };
  for (const TaskConfig& task : {problems, text}) {
    EXPECT_EQ(score(task, folder_ / "model"), "");
    EXPECT_EQ(score(task, folder_ / "model/"), "");
  }
  Model other(model_->config());
  other.initialise({1, 0.1}, at::kCPU, at::kFloat);
  export_model(other, folder_ / "model", {.like = folder_ / "model"});
  for (const TaskConfig& task : {problems, text}) {
    EXPECT_NE(score(task, folder_ / "model").find("of other weights or settings"), std::string::npos);
  }
}

TEST_F(EvaluateTest, PerplexityIsATaskOfConfigurations) {
  write_file(folder_ / "a.txt", "jan has 3 apples . how many apples does jan have ?");
  TaskConfig config;
  parse_config(concat("{name: perplexity, data: ", (folder_ / "a.txt").string(), ", window: 8, stride: 3}"), "r.yaml", {},
               [&](ConfigVisitor& v) { config.visit(v); });
  const OrderedJson score = evaluate_task(*model_, tokenizer_, config);
  EXPECT_EQ(score["perplexity"], measure_perplexity(*model_, *tokenizer_, config.data, {.window = 8, .stride = 3}).perplexity());
  EXPECT_EQ(score_text(score).rfind("perplexity ", 0), 0u);
  EXPECT_EQ(score_text(OrderedJson{{"accuracy", 0.953125}, {"standard_error", 0.019}}), "0.953 +- 0.019");
  EXPECT_EQ(error_of([&] { make_task(config); }),
            "task perplexity: it has no answers that are right or wrong, expected one of the other tasks");
  config.data.clear();
  EXPECT_EQ(error_of([&] { evaluate_task(*model_, tokenizer_, config); }), "task perplexity: data: expected a file of text");
}

}  // namespace evaluate_tests
}  // namespace molt
