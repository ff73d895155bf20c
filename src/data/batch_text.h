// A batch for people to look at: each token with what learning it counts.
#pragma once
#include <string>

#include "model/batch.h"
#include "text/tokenizer.h"

namespace molt {

// A heading for each sequence ("sequence 0: 5 tokens, 2 learned") and a line for each of its tokens: position, id, weight of
// predicting it in the loss (0 for the first, which nothing predicts), and the token as the tokenizer spells it. `batch` must be
// on the CPU; without a tokenizer the spelling is left out.
std::string batch_text(const PackedBatch& batch, const Tokenizer* tokenizer);

}  // namespace molt
