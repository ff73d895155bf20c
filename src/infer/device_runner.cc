#include "infer/device_runner.h"

#ifdef MOLT_CUDA
#include <ATen/Functions.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/core/InferenceMode.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace molt {
namespace device_runner_detail {

bool replayable(const Model& model) {
  const auto dtype = model.dtype();
  if (dtype != at::kFloat && dtype != at::kBFloat16) return false;
  std::int64_t width = 0;
  for (const Block& block : model.blocks) {
    const std::int64_t own = block.mixer().rotary_width();
    // The step's rotary table serves one width; a mixer makes another one on the host.
    if (!block.mixer().replayable() || (own != 0 && width != 0 && own != width)) return false;
    width = std::max(width, own);
  }
  return true;
}

// The batch size that a step of n sequences is recorded for.
std::int64_t rounded(std::int64_t n, std::int64_t largest) {
  std::int64_t size = 1;
  while (size < n && size < 16) size *= 2;
  if (size < n) size = (n + 15) / 16 * 16;
  return std::min(size, largest);
}

// Graphs are recorded on a stream of their own, one for the process: LibTorch keeps a workspace for each that it has seen.
c10::cuda::CUDAStream recording_stream() {
  static const c10::cuda::CUDAStream stream = c10::cuda::getStreamFromPool();
  return stream;
}

}  // namespace device_runner_detail

struct DeviceRunner::Decode {
  explicit Decode(StepBuffer its_buffer) : buffer(std::move(its_buffer)) {}
  StepBuffer buffer;
  bool ran = false;  // once outside a graph, so that libraries have set themselves up
  std::unique_ptr<at::cuda::CUDAGraph> graph;
};

DeviceRunner::DeviceRunner(const Model& model, CachePool& pool)
    : model_(model),
      pool_(pool),
      replayable_(device_runner_detail::replayable(model)),
      buffer_(model.device(), pool.block_size()),
      graph_memory_(at::cuda::graph_pool_handle()),
      done_{c10::Event(at::kCUDA), c10::Event(at::kCUDA)} {
  const std::int64_t rows = pool.sequences();
  const auto bytes = [&](std::size_t size) { return rows * static_cast<std::int64_t>(size); };
  const auto on_device = at::TensorOptions(model.device()).dtype(at::kByte);
  const auto pinned = at::TensorOptions(at::kCPU).dtype(at::kByte).pinned_memory(true);
  draws_ = at::zeros({bytes(sizeof(Draw))}, on_device);
  drawn_ = at::zeros({bytes(sizeof(Drawn))}, on_device);
  for (at::Tensor& host : host_draws_) host = at::zeros({bytes(sizeof(Draw))}, pinned);
  for (at::Tensor& host : host_drawn_) host = at::zeros({bytes(sizeof(Drawn))}, pinned);
}

DeviceRunner::~DeviceRunner() {
  // A graph must not be taken away from under a running step.
  for (; !flights_.empty(); flights_.pop_front()) {
    try {
      done_[flights_.front().place].synchronize();
    } catch (const c10::Error&) {  // of the GPU: whoever waited for a step before has been told
    }
  }
}

// Every row: the i-th token is drawn from the i-th row.
void DeviceRunner::compute(const Step& step, const at::Tensor& follows, std::int64_t drawn, bool every_row) {
  const auto stream = c10::cuda::getCurrentCUDAStream().stream();
  auto* results = static_cast<Drawn*>(drawn_.mutable_data_ptr());
  take_drawn_tokens(step.tokens.mutable_data_ptr<std::int64_t>(), follows.const_data_ptr<std::int32_t>(), step.tokens.size(0),
                    results, stream);
  at::Tensor hidden = model_.extend(step, pool_.caches());
  if (drawn == 0) return;
  if (!every_row) {
    const at::Tensor rows = draws_.view(at::kLong).view({-1, sizeof(Draw) / sizeof(std::int64_t)}).select(1, 0);
    hidden = hidden.index_select(0, rows.narrow(0, 0, drawn));
  }
  const at::Tensor logits = model_.logits(hidden).contiguous();
  const bool narrow = logits.scalar_type() == at::kBFloat16;
  const at::Tensor values = narrow ? logits : logits.to(at::kFloat);
  sample_on_device({.bfloat16 = narrow,
                    .rows = drawn,
                    .vocabulary = values.size(1),
                    .logits = values.const_data_ptr(),
                    .draws = static_cast<const Draw*>(draws_.const_data_ptr()),
                    .drawn = results},
                   stream);
}

void DeviceRunner::decode(std::span<const StepItem> items) {
  using namespace device_runner_detail;
  const std::int64_t rows = rounded(static_cast<std::int64_t>(items.size()), pool_.sequences());
  std::unique_ptr<Decode>& held = decodes_[rows];
  if (!held) held = std::make_unique<Decode>(StepBuffer(model_.device(), pool_.block_size()));
  Decode& decode = *held;
  const Step& step = decode.buffer.build(items, rows);
  if (!decode.ran) {
    compute(step, decode.buffer.follows(), rows, true);
    decode.ran = true;
    return;
  }
  if (!decode.graph) {
    auto graph = std::make_unique<at::cuda::CUDAGraph>();
    const c10::cuda::CUDAStreamGuard guard(recording_stream());
    graph->capture_begin(graph_memory_, cudaStreamCaptureModeThreadLocal);
    compute(step, decode.buffer.follows(), rows, true);
    graph->capture_end();
    decode.graph = std::move(graph);
  }
  decode.graph->replay();
}

void DeviceRunner::start(std::span<const StepItem> items, std::span<const Draw> draws) {
  c10::InferenceMode no_gradients;
  MOLT_CHECK(flights_.size() < 2, "two steps are under way");
  turn_ = 1 - turn_;
  std::copy(draws.begin(), draws.end(), static_cast<Draw*>(host_draws_[turn_].mutable_data_ptr()));
  draws_.copy_(host_draws_[turn_], /*non_blocking=*/true);
  const bool one_token_each = draws.size() == items.size() &&
                              std::all_of(items.begin(), items.end(), [](const auto& item) { return item.tokens.size() == 1; });
  if (replayable_ && one_token_each) {
    decode(items);
  } else {
    const Step& step = buffer_.build(items);
    compute(step, buffer_.follows(), static_cast<std::int64_t>(draws.size()), false);
  }
  host_drawn_[turn_].copy_(drawn_, /*non_blocking=*/true);
  done_[turn_].record(c10::cuda::getCurrentCUDAStream().unwrap());
  flights_.push_back({turn_, draws.size()});
}

std::span<const Drawn> DeviceRunner::finish() {
  MOLT_CHECK(!flights_.empty(), "no step is under way");
  const Flight flight = flights_.front();
  flights_.pop_front();
  done_[flight.place].synchronize();
  const std::span<const Drawn> drawn(static_cast<const Drawn*>(host_drawn_[flight.place].const_data_ptr()), flight.drawn);
  for (const Drawn& one : drawn) require_finite_logits(std::isfinite(one.log_probability));
  return drawn;
}

}  // namespace molt
#endif
