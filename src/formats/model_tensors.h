// Which tensors on disk make up each parameter of a model.
#pragma once
#include <string>
#include <vector>

#include "model/model.h"

namespace molt {

// Rows [first_row, first_row + rows) of a parameter, as a tensor of their own.
struct StoredTensor {
  std::string name;  // on disk
  std::int64_t first_row = 0, rows = 0;
  std::vector<std::int64_t> shape;
  double scale = 1.0;  // in memory = stored * scale
};

struct StoredParameter {
  std::string name;                   // canonical
  at::Tensor* value;                  // in the model
  std::vector<StoredTensor> on_disk;  // in the order of their rows
};

// Every parameter but those of inactive mixers and of adapters (peft.h), in the order of Model::visit.
std::vector<StoredParameter> stored_parameters(Model& model);

}  // namespace molt
