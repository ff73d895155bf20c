#include "infer/step_runner.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <iterator>

namespace molt {
namespace step_runner_detail {

std::int64_t max_shares(const Model& model, double weights) {
  constexpr double small = 64 << 20;  // bytes of weights
  const bool divided = model.device().is_cpu() && weights * static_cast<double>(c10::elementSize(model.dtype())) <= small;
  return divided ? at::get_num_threads() : 1;
}

// While it lives, nothing that this thread calls is divided among threads (MKL divides even small products).
class OneThread {
 public:
  explicit OneThread(bool active) : threads_(active ? at::get_num_threads() : 1) {
    if (threads_ > 1) at::set_num_threads(1);
  }
  ~OneThread() {
    if (threads_ > 1) at::set_num_threads(threads_);
  }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int threads_;
};

}  // namespace step_runner_detail

StepRunner::StepRunner(const Model& model, CachePool& pool)
    : model_(model), pool_(pool), weights_(model.flops(1) / 2) {  // nearly: each is multiplied once
#ifdef MOLT_CUDA
  if (model.device().is_cuda()) {
    on_device_ = std::make_unique<DeviceRunner>(model, pool);
    return;
  }
#endif
  for (std::int64_t i = step_runner_detail::max_shares(model, weights_); i-- > 0;) {
    shares_.push_back({StepBuffer(model.device(), pool.block_size()), {}, {}, {}, {}, {}, {}});
  }
}

std::int64_t StepRunner::shares_of(std::span<const SampledItem> items) const {
  // Waking a thread pays from a few sequences on; a long prompt is better divided inside the layers.
  constexpr std::int64_t least = 2;
  const std::int64_t shares = std::clamp<std::int64_t>(std::ssize(items) / least, 1, std::ssize(shares_));
  std::int64_t total = 0, longest = 0;
  for (const SampledItem& item : items) {
    total += std::ssize(item.tokens);
    longest = std::max<std::int64_t>(longest, std::ssize(item.tokens));
  }
  return longest <= total / shares ? shares : 1;
}

StepRunner::~StepRunner() = default;

#ifdef MOLT_CUDA
bool StepRunner::overlaps() const {
  return on_device_ != nullptr;
}

void StepRunner::start_on_device(std::span<const SampledItem> items) {
  device_items_.assign(items.begin(), items.end());
  device_draws_.clear();
  std::int64_t row = 0;
  for (const SampledItem& item : items) {
    row += std::ssize(item.tokens);
    if (item.sampling) device_draws_.push_back(draw_of(*item.sampling, item.draw, row - 1));
  }
  on_device_->start(device_items_, device_draws_);
}

void StepRunner::finish(std::span<SampledItem> items) {
  if (!on_device_) return;
  const std::span<const Drawn> drawn = on_device_->finish();
  std::size_t next = 0;
  for (SampledItem& item : items) {
    if (!item.sampling) continue;
    item.token = drawn[next].token;
    item.log_probability = drawn[next++].log_probability;
  }
}
#else
bool StepRunner::overlaps() const {
  return false;
}

void StepRunner::finish(std::span<SampledItem>) {}
#endif

void StepRunner::start(std::span<SampledItem> items) {
#ifdef MOLT_CUDA
  if (on_device_) return start_on_device(items);
#endif
  const std::int64_t shares = shares_of(items);
  if (shares == 1) {
    constexpr double little = 4e6;  // multiplications: less than waking threads for every product costs
    std::int64_t tokens = 0;
    for (const SampledItem& item : items) tokens += std::ssize(item.tokens);
    const step_runner_detail::OneThread alone(model_.device().is_cpu() && weights_ * static_cast<double>(tokens) <= little);
    return run(shares_.front(), items);
  }
  at::parallel_for(0, shares, 1, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i) {
      const std::int64_t begin = std::ssize(items) * i / shares, end = std::ssize(items) * (i + 1) / shares;
      run(shares_[static_cast<std::size_t>(i)],
          items.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin)));
    }
  });
}

void StepRunner::run(Share& share, std::span<SampledItem> items) const {
  share.items.clear(), share.sampled.clear(), share.rows.clear(), share.draws.clear(), share.options.clear();
  std::int64_t row = 0;
  for (SampledItem& item : items) {
    share.items.push_back(item);
    row += std::ssize(item.tokens);
    if (!item.sampling) continue;
    share.sampled.push_back(&item);
    share.rows.push_back(row - 1);
    share.draws.push_back(item.draw);
    share.options.push_back(*item.sampling);
  }
  c10::InferenceMode no_gradients;
  at::Tensor hidden = model_.extend(share.buffer.build(share.items), pool_.caches());
  if (share.sampled.empty()) return;
  if (std::ssize(share.rows) < row) hidden = hidden.index_select(0, at::tensor(share.rows, at::kLong).to(hidden.device()));
  const auto tokens = sample(model_.logits(hidden), share.options, share.draws, share.log_probabilities);
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    share.sampled[i]->token = tokens[i];
    share.sampled[i]->log_probability = share.log_probabilities[i];
  }
}

}  // namespace molt
