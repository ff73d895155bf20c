// Time on the device between two points of the current stream.
#pragma once
#include <ATen/Context.h>
#include <benchmark/benchmark.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>

namespace molt {

// For a benchmark with UseManualTime(): measures `body` once an iteration, after some runs that are not counted, and reports the
// time of one of the `calls` that it makes.
template <class Body>
void time_on_gpu(benchmark::State& state, const Body& body, int calls = 1) {
  constexpr int kWarmUps = 3;
  const c10::impl::VirtualGuardImpl device(c10::kCUDA);
  for (int i = 0; i < kWarmUps; ++i) body();
  c10::Event begin(c10::kCUDA, c10::EventFlag::BACKEND_DEFAULT), end(c10::kCUDA, c10::EventFlag::BACKEND_DEFAULT);
  for (auto _ : state) {
    const c10::Stream stream = device.getStream(c10::Device(c10::kCUDA, 0));
    begin.record(stream);
    body();
    end.record(stream);
    end.synchronize();
    state.SetIterationTime(begin.elapsedTime(end) / 1e3 / calls);
  }
}

}  // namespace molt
