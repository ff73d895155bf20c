#include "data/batch_text.h"

#include <iomanip>
#include <sstream>

#include "base/counted.h"
#include "base/error.h"

namespace molt {

std::string batch_text(const PackedBatch& batch, const Tokenizer* tokenizer) {
  MOLT_CHECK(batch.device().is_cpu(), "a batch on ", batch.device().str(), " is to be shown");
  const auto* tokens = batch.tokens.const_data_ptr<std::int64_t>();
  const auto* weights = batch.loss_weights.const_data_ptr<float>();
  std::ostringstream text;
  for (std::int64_t sequence = 0; sequence < batch.sequences.count(); ++sequence) {
    const std::int64_t begin = batch.sequences.offsets[sequence], end = batch.sequences.offsets[sequence + 1];
    std::int64_t learned = 0;
    for (std::int64_t row = begin; row + 1 < end; ++row) learned += weights[row] != 0;
    text << "sequence " << sequence << ": " << counted(end - begin, "token") << ", " << learned << " learned\n";
    for (std::int64_t row = begin; row < end; ++row) {
      text << std::setw(8) << row - begin << std::setw(9) << tokens[row] << std::setw(7) << (row > begin ? weights[row - 1] : 0);
      if (tokenizer) text << "  " << tokenizer->token(static_cast<std::int32_t>(tokens[row]));
      text << "\n";
    }
  }
  return text.str();
}

}  // namespace molt
