// Batches from streams of samples: ordered by seed, blended, packed end to end, the next one made in the background.
#pragma once
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/config.h"
#include "data/batch_source.h"
#include "data/sample_stream.h"

namespace molt {

// One of the data sets of a blend.
struct BlendPartConfig {
  std::string path;                          // folder of `molt prepare`
  std::optional<SyntheticConfig> synthetic;  // fresh problems
  double weight = 1;
  void visit(ConfigVisitor& visitor);
};

// Batches whose samples' prompts the student continues itself, in a distillation (distill/on_policy.h).
struct OnPolicyConfig {
  double fraction = 1;               // of the batches; the others are the data as it is (lambda of GKD, arXiv 2306.13649)
  std::int64_t max_tokens = 256;     // new tokens of a sample at most
  double temperature = 1;            // of the sampling
  std::int64_t top_k = 0;            // 0: all tokens
  double top_p = 1;                  // 1: all tokens
  std::int64_t max_sequences = 256;  // decoded together
  void visit(ConfigVisitor& visitor);
};

// The data section of a configuration: one of `path`, `synthetic` and `blend`.
struct DataConfig {
  std::string path;
  std::optional<SyntheticConfig> synthetic;
  std::map<std::string, BlendPartConfig> blend;
  bool shuffle = true;
  std::int64_t max_length = 0;
  std::string packing = "in_order";  // in_order, best_fit
  std::string learn = "all";         // all, reasoning, answer (learned_part.h)
  std::string reasoning_end;  // the text that ends the reasoning; empty: "answer :" of synthetic problems, "</think>" otherwise
  std::optional<OnPolicyConfig> on_policy;
  void visit(ConfigVisitor& visitor);
};

// A stream and how much of it there is to be.
struct DataPart {
  std::shared_ptr<const SampleStream> stream;
  double weight = 1;  // of its tokens, relative to the other parts'
};

// The streams of a section; `place` names it in errors; `tokenizer` serves synthetic data (it may be null for prepared data).
std::vector<DataPart> open_data(const DataConfig& config, std::shared_ptr<const Tokenizer> tokenizer, const std::string& place);

// Of the content of the section's folders, 16 hexadecimal digits; empty where it names none.
std::string data_fingerprint(const DataConfig& config);

// Samples in the order of (seed, epoch): a finite stream is permuted anew each epoch, an endless one is read as it comes; parts
// are blended in proportion to their weights. In order, a batch takes samples until the next one does not fit. By best fit, it
// takes the one that has waited longest and then, again and again, the longest that still fits among the next 512; so little of a
// batch is left empty. position() is {"sample": number of samples drawn, "waiting": those of them that are in no batch yet}, the
// second for best fit alone; either way of packing continues from the other's position.
std::unique_ptr<BatchSource> packed_source(std::vector<DataPart> parts, std::uint64_t seed, const DataConfig& config);
std::unique_ptr<BatchSource> packed_source(std::shared_ptr<const SampleStream> stream, std::uint64_t seed,
                                           const DataConfig& config);

}  // namespace molt
