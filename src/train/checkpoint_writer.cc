#include "train/checkpoint_writer.h"

#include <chrono>

#include "base/error.h"

namespace molt {

void CheckpointWriter::start(Checkpoint checkpoint, std::function<void(const fs::path&)> write_exports) {
  MOLT_CHECK(!under_way_.valid(), "a checkpoint is being written");
  auto write = [run = run_, retention = retention_, checkpoint = std::move(checkpoint), exports = std::move(write_exports)] {
    const WrittenCheckpoint written{save_checkpoint(run, checkpoint, exports), checkpoint.step, checkpoint.loss};
    prune_checkpoints(run, retention);
    return written;
  };
  under_way_ = std::async(std::launch::async, std::move(write));
}

std::optional<WrittenCheckpoint> CheckpointWriter::finished(bool wait) {
  if (!under_way_.valid()) return std::nullopt;
  if (!wait && under_way_.wait_for(std::chrono::seconds(0)) != std::future_status::ready) return std::nullopt;
  return under_way_.get();
}

}  // namespace molt
