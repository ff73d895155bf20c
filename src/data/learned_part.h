// Learning from a part of what a sample teaches: the reasoning alone, or the answer alone.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "data/sample_stream.h"

namespace molt {

// The samples of `stream`, of whose learned tokens only a part keeps its weight. `reasoning_end` are tokens that end the
// reasoning, which they belong to; the answer is what follows the first place in the learned part where they stand together. A
// sample without them is reasoning to its end. part: "all", "reasoning", "answer".
std::shared_ptr<const SampleStream> learned_part(std::shared_ptr<const SampleStream> stream, const std::string& part,
                                                 std::vector<std::int32_t> reasoning_end);

}  // namespace molt
