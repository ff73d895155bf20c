// Writes checkpoints while training goes on, one at a time.
#pragma once
#include <functional>
#include <future>
#include <optional>

#include "train/checkpoint.h"

namespace molt {

struct WrittenCheckpoint {
  fs::path folder;
  std::int64_t step = 0;
  double loss = 0;
};

class CheckpointWriter {
 public:
  CheckpointWriter(fs::path run, Retention retention) : run_(std::move(run)), retention_(retention) {}

  // Begins to write (save_checkpoint, then prune_checkpoints); the one before must have been waited for. Nothing that is written
  // may change until then.
  void start(Checkpoint checkpoint, std::function<void(const fs::path&)> write_exports);
  // The checkpoint that was finished since the last call, if any; waits for the one under way when `wait`. Throws what the
  // writing threw.
  std::optional<WrittenCheckpoint> finished(bool wait);

 private:
  fs::path run_;
  Retention retention_;
  std::future<WrittenCheckpoint> under_way_;
};

}  // namespace molt
