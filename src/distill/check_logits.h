// What must hold before a training learns from stored logits.
#pragma once
#include <string>

#include "data/packed_source.h"
#include "distill/stored_logits.h"
#include "model/model.h"
#include "train/config.h"

namespace molt {

// The head's temperature, the student's vocabulary and its tokenizer (null: not known) are those that the logits were written
// with. UserError, which `place` starts, otherwise.
void check_logits(const StoredLogits& logits, const HeadConfig& head, const Model& student, const Tokenizer* tokenizer,
                  const std::string& place);

// Everything that a data section reads has its logits: folders of `molt prepare` alone, with the samples as they are. UserError,
// which `place` starts, otherwise.
void check_logits_data(const StoredLogits& logits, const DataConfig& data, const std::string& place);

}  // namespace molt
