// Verifying a model's numbers: its logits on given tokens, and how far two models' next-token distributions are apart.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/files.h"
#include "base/json.h"
#include "model/model.h"
#include "text/tokenizer.h"

namespace molt {

struct Sequence {
  std::vector<std::int32_t> tokens;
  std::int64_t completion = 0;  // index of its completion's first token; 0: it has none
};

// Sequences of a JSONL file: {"tokens": [...]}, or, with a tokenizer, {"text": …} or {"prompt": …, "completion": …}. UserError
// for an id outside [0, vocabulary) and for a line without tokens.
std::vector<Sequence> read_sequences(const fs::path& path, const Tokenizer* tokenizer, std::int64_t vocabulary);

// Logits of every position of one sequence, fp32 (tokens, vocabulary), on the CPU.
at::Tensor sequence_logits(const Model& model, const std::vector<std::int32_t>& tokens);

// The logits of each sequence as one tensor, named "0", "1", … by line.
void write_logits(const Model& model, const std::vector<Sequence>& sequences, const fs::path& output);

struct Agreement {
  std::int64_t positions = 0;
  double kl_ab = 0, kl_ba = 0;    // sums of KL(a || b) and KL(b || a) over positions, nats
  std::int64_t same_top = 0;      // positions where both have the same most likely token
  double largest_difference = 0;  // of two logits, each position's mean taken out (a shift changes no distribution)
  void add(const Agreement& other);
};

struct Comparison {
  Agreement all;
  Agreement completions;                          // of the positions that predict tokens of a completion
  std::map<std::int64_t, Agreement> by_position;  // key: first position of a range [key, 2 key); 0 holds position 0
  OrderedJson to_json() const;
};

// Logits (tokens, vocabulary) of one sequence from two sides, compared in double precision and added to `comparison`.
// completion: as in Sequence.
void compare_logits(const at::Tensor& a, const at::Tensor& b, Comparison& comparison, std::int64_t completion = 0);

}  // namespace molt
