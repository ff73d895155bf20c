// Reasoning problems without end: arithmetic word problems over a graph of quantities that depend on one another, told in
// shuffled order among statements that do not matter, with a worked chain of steps and a final answer that can be checked.
//
//   prompt       "jan has 2 fewer apples than hal . ola owns 7 apples . hal has 12 apples . how many apples does jan have ?"
//   completion   " hal = 12 . jan = 12 - 2 = 10 . answer : 10"
//
// Everything is lower case, tokens are separated by single spaces, and vocabulary_words() lists all that can occur.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "data/synthetic/config.h"

namespace molt {

struct Problem {
  // Another question about the same text; both parts begin with a space.
  struct Turn {
    std::string question, solution;
  };

  std::string id;                // "train-7-42": split, seed, index
  std::string prompt;            // statements and the question; the statements alone for prose
  std::string completion;        // begins with a space, so that prompt + completion is the whole text; empty for prose
  std::string answer;            // the final number; empty for prose
  std::vector<Turn> further;     // what is asked and solved behind the completion; figures below leave it out but for tokens
  std::int64_t steps = 0;        // dependent steps: quantities to be computed, the answer included
  std::int64_t distance = 0;     // tokens between the needed statement farthest from the question and the question; 0 for prose
  std::int64_t distractors = 0;  // statements that the answer does not need
  std::int64_t tokens = 0;       // count_tokens of prompt, completion and what is asked further
  std::uint64_t graph = 0;       // hash of the needed graph without its names; decides the split
};

// Problem `index` of the endless sequence that the config names: a pure function of its arguments, a few microseconds long, safe
// to call from many threads. UserError for a config out of range, or so narrow that its split holds no graph.
Problem make_problem(const SyntheticConfig& config, std::uint64_t index);

// One record of a JSONL file: {"id", "prompt", "completion", "answer", "steps", "distance", "distractors", "graph"} with the hash
// as 16 hexadecimal digits; {"id", "text", "steps", "distractors", "graph"} for prose. The first question alone.
OrderedJson to_json(const Problem& problem);

// Tokens of a text where each word, each digit and each other mark is one: what a word-level tokenizer makes of these problems.
std::int64_t count_tokens(std::string_view text);

// The number after the first "answer :" (or "Answer:") or "####" that a number follows, whatever comes behind it: "45" in
// "… answer : 45 . so", "answer: 4 5" (digits apart, as some tokenizers decode them), "#### 45" and "#### $45.00"; "1234" in
// "#### 1,234". Nothing when there is none.
std::optional<std::string> final_answer(std::string_view text);
// Whether the text's final answer is the expected one.
bool check_answer(std::string_view text, std::string_view expected);
bool check_answer(std::string_view text, const Problem& problem);

// Every word, mark and digit that a problem of any config can hold, sorted, each once.
std::vector<std::string> vocabulary_words();

}  // namespace molt
