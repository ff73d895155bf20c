// A line of JSONL as a sample.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "data/chat_sample.h"
#include "data/prepare.h"
#include "model/batch.h"
#include "text/tokenizer.h"

namespace molt {

// Reads lines of the kinds that prepare.h lists. Several threads may share one.
class LineSampler {
 public:
  explicit LineSampler(const PrepareConfig& config);
  // UserError, which begins with `place`, for a malformed line.
  PackedBatch::Sample sample(std::string_view line, const std::string& place) const;
  const Tokenizer& tokenizer() const { return *tokenizer_; }

 private:
  PackedBatch::Sample pretokenized(const Json& object, const std::string& place) const;
  PackedBatch::Sample conversation(std::string_view line, const std::string& place) const;

  const PrepareConfig& config_;
  ChatLearning learning_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::optional<ChatTemplate> template_;
};

}  // namespace molt
