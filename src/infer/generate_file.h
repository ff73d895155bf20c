// Completions for a JSONL file of prompts: what `molt generate --input` does, and how traces of a teacher are made.
#pragma once
#include <cstdint>
#include <memory>

#include "base/files.h"
#include "infer/text_generation.h"

namespace molt {

struct GenerateFileOptions {
  fs::path input;            // an object a line with "prompt": text, "tokens": [ids] or "messages": [{"role": …, …}, …]
  fs::path output;           // `samples` lines for each, in the same order
  TextRequest request = {};  // of every line but for its prompt; a line's seed is derived from this one and the line's number
  std::int64_t samples = 1;
  std::int64_t max_sequences = 32;
  fs::path model_folder = {};  // has the chat template, which is read at the first line with "messages"
};

struct GenerateFileResult {
  std::int64_t found = 0;    // lines of output that were there already
  std::int64_t written = 0;  // new ones
  std::int64_t tokens = 0;   // generated for them
};

// "messages" are laid out by the chat template, up to where the assistant begins; "tools", "documents" and an object
// "chat_template_kwargs" of the line go to it as well.
//
// A line of output has its line of input's fields and "completion", "finish_reason" ("stop", "length"), "completion_tokens" and
// "log_probability" (their sum, at temperature 1); with several samples, "sample": 0, 1, … too. A "completion" of the input is
// kept as "reference". Lines appear whole, as soon as all before them are done: a run that was stopped is continued by the next
// one. The whole input is checked first. UserError for a malformed line, and for an output that belongs to another input.
GenerateFileResult generate_file(const Model& model, std::shared_ptr<const Tokenizer> tokenizer,
                                 const GenerateFileOptions& options);

}  // namespace molt
