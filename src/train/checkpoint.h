// Checkpoints of a run: <run>/checkpoints/<step, 8 digits>/, each whole or absent.
//   export/                a Hugging Face folder
//   average/               the same of the averaged weights, where they are kept (average.h)
//   optimizer.safetensors  by parameter name: "<name>.master" (the exact weight), "<name>.moment1", "<name>.moment2";
//                          "<name>.average"; "random.cpu", "random.cuda": LibTorch's own generators; "guard.*" (guard.h)
//   state.json             the rest of the run's state
//   checksums.json         of all these files (base/checksum.h)
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/files.h"
#include "base/json.h"
#include "model/parameters.h"

namespace molt {

struct Checkpoint {
  fs::path folder;                    // where it was read from
  std::int64_t step = 0, tokens = 0;  // done
  double seconds = 0;                 // of training
  int threads = 0;
  std::string device, dtype;
  std::map<std::string, std::string> versions;
  double loss = 0;                                        // mean of the log interval so far, for people
  std::shared_ptr<const Json> data;                       // position of the BatchSource
  std::string data_fingerprint;                           // of what it reads
  std::map<std::string, std::string> model_fingerprints;  // by folder, of models that are not saved here
  std::shared_ptr<const Json> interval;                   // IntervalSums
  std::shared_ptr<const Json> horizon;                    // of Horizon
  std::vector<Parameter> tensors;                         // of optimizer.safetensors; read ones lie in the mapped file
};

// Writes <run>/checkpoints/<step>; `write_exports` is given the folder to put export/ into. Returns the checkpoint's folder.
fs::path save_checkpoint(const fs::path& run, const Checkpoint& checkpoint,
                         const std::function<void(const fs::path&)>& write_exports);
// Every file is read and compared with its checksum. UserError names the file and what is wrong with it.
Checkpoint read_checkpoint(const fs::path& folder);

// Folders of a run's checkpoints, newest first; none for a folder that is no run.
std::vector<fs::path> list_checkpoints(const fs::path& run);
// Which checkpoints stay: the newest ones, and all of steps that are multiples of `every` (0: none).
struct Retention {
  std::int64_t newest = 1, every = 0;
};
void prune_checkpoints(const fs::path& run, const Retention& retention);
// Moves a checkpoint that cannot be read out of the way ("00000010.damaged"), for somebody to look at. Returns its new place.
fs::path set_aside(const fs::path& checkpoint);

}  // namespace molt
