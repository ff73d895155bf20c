// Converting a model folder into another one without holding the model.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "distill/convert.h"
#include "formats/hugging_face.h"

namespace molt {

struct FolderConversion {
  fs::path model, teacher;            // teacher: whose attention weights are taken; empty: the model's own
  std::vector<std::int64_t> layers;   // to convert
  std::vector<std::int64_t> restore;  // to give the teacher's attention back before that
  TargetMixerConfig target;
  std::uint64_t seed = 0;
  std::string place, restore_place;  // start errors: "--layers", "--restore"
  fs::path output;
  ExportOptions options = {};  // like and source are set here
};

// Without layers the model as it is: a folder of adapters (formats/peft.h) becomes one of whole weights.
//
// What restore_layers, convert_layers and export_model would write, in the dtype that the model is stored in, the same bytes.
// Tensor by tensor: what stays is copied from file to file, one layer's new mixer is in memory at a time. Says how much disk it
// needs before it begins; UserError when there is less, and for whatever these three refuse. Interrupted, with nothing left,
// between two tensors.
void convert_folder(const FolderConversion& conversion);

}  // namespace molt
