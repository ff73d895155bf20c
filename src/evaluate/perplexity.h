// How well a model predicts text.
#pragma once
#include <cstdint>

#include "base/files.h"
#include "base/json.h"
#include "model/model.h"
#include "text/tokenizer.h"

namespace molt {

struct PerplexityOptions {
  std::int64_t window = 0;    // tokens that the model sees at once; 0: its context, 2,048 at most
  std::int64_t stride = 0;    // new tokens of each window but a text's first; 0: half a window
  std::int64_t limit = 0;     // texts at most; 0: all
  fs::path output = {};       // folder for windows.jsonl and score.json; empty: nothing is kept
  std::string identity = {};  // what is measured; results of something else in the folder are a UserError
  std::string weights = {};   // as much; empty: `identity` says it all
};

struct Perplexity {
  std::int64_t texts = 0, bytes = 0;  // of UTF-8
  std::int64_t tokens = 0;            // predicted ones
  double nats = 0;                    // summed over them
  double standard_error = 0;          // of the loss, over windows
  double loss() const;                // nats a token
  double perplexity() const;          // exp(loss): comparable between models of one tokenizer only
  double bits_per_byte() const;       // comparable between all models
  OrderedJson to_json() const;
};

// Of the "text" of each line where the file is called *.jsonl, otherwise of the whole file as one text. Each token is predicted
// once, from at least window - stride tokens before it where the text has them; a text's first token is predicted only if the
// tokenizer puts one before it. UserError for a file without text, and for a window or stride out of range.
//
// Windows are computed in packs. output/windows.jsonl has a line a pack, {"pack", "nats": [a figure a window], "tokens": […]},
// and a measurement that was interrupted continues after them: the packs, and so the figures to their last digit, are the same.
Perplexity measure_perplexity(const Model& model, const Tokenizer& tokenizer, const fs::path& file,
                              const PerplexityOptions& options);

}  // namespace molt
