// One step of many sequences: through the model, and to a token each.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "infer/cache_pool.h"
#include "infer/device_runner.h"
#include "infer/sampling.h"
#include "infer/step_buffer.h"
#include "model/model.h"

namespace molt {

struct SampledItem : StepItem {
  const SamplingOptions* sampling = nullptr;  // null: no token is drawn after the new ones
  std::int64_t draw = 0;                      // how many the request has drawn before
  // Results.
  std::int32_t token = -1;
  float log_probability = 0;
};

class StepRunner {
 public:
  // Both must outlive the runner; no other thread may use the pool while a step runs, and the model must not change.
  StepRunner(const Model& model, CachePool& pool);
  ~StepRunner();

  // Extends the sequences' caches by their tokens, and draws a token for each that wants one: `start` begins, and the results
  // stand in the items after `finish`.
  //
  // On a GPU the next step may be started before this one is finished, and go on with tokens that it draws (StepItem::follows).
  // A small model's layers are too short to be divided among threads, and its weights lie near every core: there each thread
  // takes a share of the sequences through the whole model, and so few tokens that no share pays go through it on one thread.
  void start(std::span<SampledItem> items);
  void finish(std::span<SampledItem> items);
  void run(std::span<SampledItem> items) { start(items), finish(items); }
  // Whether two steps may be under way.
  bool overlaps() const;

 private:
  // What one thread takes through the model.
  struct Share {
    StepBuffer buffer;
    std::vector<StepItem> items;
    std::vector<SampledItem*> sampled;
    std::vector<std::int64_t> rows, draws;
    std::vector<SamplingOptions> options;
    std::vector<float> log_probabilities;
  };
  void run(Share& share, std::span<SampledItem> items) const;
  std::int64_t shares_of(std::span<const SampledItem> items) const;

  const Model& model_;
  CachePool& pool_;
  double weights_;  // multiplied by each token
  std::vector<Share> shares_;
#ifdef MOLT_CUDA
  void start_on_device(std::span<const SampledItem> items);
  std::unique_ptr<DeviceRunner> on_device_;
  std::vector<StepItem> device_items_;
  std::vector<Draw> device_draws_;
#endif
};

}  // namespace molt
