// Work captured into a CUDA graph, so that its kernels follow each other without waiting for the host: the time of kernels alone.
#pragma once
#ifdef MOLT_CUDA
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <functional>
#include <memory>

namespace molt {

// `prepare` makes inputs and returns work that waits for nothing on the host. What is returned replays `calls` of it on the
// current stream. All of it is prepared and captured on one stream of its own, to which autograd returns for backward passes.
inline std::function<void()> captured(const std::function<std::function<void()>()>& prepare, int calls = 1) {
  const auto graph = std::make_shared<at::cuda::CUDAGraph>();
  const c10::cuda::CUDAStream stream = c10::cuda::getStreamFromPool();
  stream.synchronize();
  std::function<void()> work;
  {
    const c10::cuda::CUDAStreamGuard guard(stream);
    work = prepare();
    for (int i = 0; i < 3; ++i) work();
    graph->capture_begin();
    for (int i = 0; i < calls; ++i) work();
    graph->capture_end();
  }
  stream.synchronize();
  return [graph, work] { graph->replay(); };
}

}  // namespace molt
#endif
