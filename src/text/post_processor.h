// Puts special tokens around the ids of a text.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"

namespace molt::text {

class PostProcessor {
 public:
  virtual ~PostProcessor() = default;
  virtual std::vector<std::int32_t> apply(std::vector<std::int32_t> ids) const = 0;
};

// From the `post_processor` of a tokenizer.json: TemplateProcessing (its form for a single text), ByteLevel (which concerns
// offsets only), Sequence.
std::unique_ptr<PostProcessor> make_post_processor(const Json& json, const std::string& place);

}  // namespace molt::text
