#include <charconv>
#include <iostream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/files.h"
#include "base/interrupt.h"
#include "base/json.h"
#include "base/progress.h"
#include "cli/commands.h"
#include "data/synthetic/problems.h"
#include "text/word_tokenizer.h"

namespace molt {

namespace synthesize {

struct Options {
  std::int64_t problems = 1000;
  std::string steps = "2-5", distractors = "0-3", output, tokenizer;
  SyntheticConfig config;
};

// "2-5" or "3".
void parse_range(const std::string& text, const std::string& option, std::int64_t& low, std::int64_t& high) {
  const char* end = text.data() + text.size();
  auto first = std::from_chars(text.data(), end, low);
  high = low;
  bool whole = first.ec == std::errc() && first.ptr == end;
  if (first.ec == std::errc() && first.ptr != end && *first.ptr == '-') {
    const auto second = std::from_chars(first.ptr + 1, end, high);
    whole = second.ec == std::errc() && second.ptr == end;
  }
  require(whole && low <= high, option, ": found \"", text, "\", expected A-B such as 2-5, or one number");
}

int run(Options& options) {
  auto& config = options.config;
  parse_range(options.steps, "--steps", config.steps_min, config.steps_max);
  parse_range(options.distractors, "--distractors", config.distractors_min, config.distractors_max);
  require(options.problems > 0, "--problems: found ", options.problems, ", expected at least 1");
  config.check("molt synthesize");
  catch_interrupts();

  AtomicFile file(options.output);
  Progress progress("synthesize", options.problems, "problems");
  for (std::int64_t i = 0; i < options.problems; ++i) {
    file.write(to_line(to_json(make_problem(config, static_cast<std::uint64_t>(i)))) + "\n");
    progress.update(i + 1);
    if (i % 1024 == 0) throw_if_interrupted();
  }
  file.commit();
  progress.finish();
  if (!options.tokenizer.empty()) {
    const fs::path folder = options.tokenizer;
    fs::create_directories(folder);
    write_file(folder / "tokenizer.json", make_word_tokenizer(vocabulary_words()));
    write_file(folder / "tokenizer_config.json", word_tokenizer_config());
  }
  return 0;
}

}  // namespace synthesize

Command synthesize_command() {
  return {"synthesize", "Write reasoning problems with worked solutions", [](Arguments& arguments) -> std::function<int()> {
            auto options = std::make_shared<synthesize::Options>();
            arguments.option("--problems", options->problems, "How many");
            arguments.option("--steps", options->steps, "Dependent steps, A-B");
            arguments.option("--distractors", options->distractors, "Statements that do not matter, A-B");
            arguments.option("--distractor-tokens", options->config.distractor_tokens,
                             "About this many tokens of such statements instead (0 to 4000)");
            arguments.option("--distractor-tokens-min", options->config.distractor_tokens_min,
                             "From so many up to --distractor-tokens, each doubling alike; 0: always --distractor-tokens");
            arguments.choice("--split", options->config.split, {"train", "test", "all"}, "No problem of one is in the other");
            arguments.choice("--form", options->config.form, {"traces", "prose"},
                             "With worked solutions, or as plain prose without any");
            arguments.flag("--equations", options->config.equations, "Solutions tell each equation before they solve it");
            arguments.option("--seed", options->config.seed, "Another seed gives other problems");
            arguments.option("--output", options->output, "JSONL file to write", true);
            arguments.option("--tokenizer", options->tokenizer, "Also write a tokenizer of these words to this folder");
            return [options] { return synthesize::run(*options); };
          }};
}

}  // namespace molt
