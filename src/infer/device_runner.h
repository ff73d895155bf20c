// Steps on a GPU. The host only starts them: lengths, slots and tokens lie in buffers on the device, a token that one step draws
// is read there by the next, and what was drawn comes back while the next step runs.
//
// Steps of one token a sequence, the bulk of generation, have the same few hundred kernels each time: they are recorded once for
// each size of batch as a CUDA graph and replayed. Sizes are rounded up, and rows of no sequence fill them.
#pragma once
#include <c10/core/Event.h>

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "infer/cache_pool.h"
#include "infer/device_sampling.h"
#include "infer/sampling.h"
#include "infer/step_buffer.h"
#include "model/model.h"

namespace molt {

#ifdef MOLT_CUDA

class DeviceRunner {
 public:
  // Both must outlive the runner and lie on one GPU. The model must not change.
  DeviceRunner(const Model& model, CachePool& pool);
  ~DeviceRunner();

  // draws[i].row is the row of the i-th token to be drawn. At most two steps may be under way.
  void start(std::span<const StepItem> items, std::span<const Draw> draws);
  // Waits for the oldest step under way: what it drew, until that many steps were started again. UserError when a row was not
  // finite.
  std::span<const Drawn> finish();

 private:
  struct Decode;  // steps of one token a sequence, of one size
  struct Flight {
    std::size_t place, drawn;
  };
  void compute(const Step& step, const at::Tensor& follows, std::int64_t drawn, bool every_row);
  void decode(std::span<const StepItem> items);

  const Model& model_;
  CachePool& pool_;
  bool replayable_;
  StepBuffer buffer_;  // of steps that are not recorded
  std::map<std::int64_t, std::unique_ptr<Decode>> decodes_;
  std::pair<std::uint64_t, std::uint64_t> graph_memory_;  // shared by the graphs, which run one after another
  // One Draw and one Drawn for each sequence of the pool; on the host two in turns.
  at::Tensor draws_, drawn_, host_draws_[2], host_drawn_[2];
  c10::Event done_[2];
  std::size_t turn_ = 0;
  std::deque<Flight> flights_;
};

#endif

}  // namespace molt
