// The selective scan on the GPU with skip and gate, and the mixer's whole core (convolution and scan, ops/mamba_scan), at the
// shapes of the published 15B teacher and at small ones: bfloat16, z, x, B and C parts of one projection, x repeated by the
// convolution before it is scanned.
//   molt_ops_bench --benchmark_filter='^(scan|mixer_core)/'
// Each pass is timed in a CUDA graph; scan/…/cuda calls autograd's functions one by one. Small shapes find their inputs in the L2
// cache, as behind the product that wrote them. `of floor` is the share of the time that is bound to pass: that of the necessary
// bytes at a copy's rate, or of an exponential for each state update of the forward and of the backward pass at 16 a cycle and
// multiprocessor of an H200, whichever is more.
#include "support/cuda_rate.h"
#ifdef MOLT_CUDA
#include <ATen/Functions.h>
#include <benchmark/benchmark.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>

#include <numeric>

#include "ops/mamba_scan/mamba_scan.h"
#include "support/device_timer.h"

namespace molt::ops {
namespace scan_gpu_bench {

constexpr std::int64_t kState = 16, kRepeat = 4, kWidth = 4;

struct Shape {
  std::string name;
  std::vector<std::int32_t> lengths;
  std::int64_t d_inner;

  std::int64_t tokens() const { return std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0}); }
};

enum class Pass { forward, backward, both };

// What is differentiated, and how y is made of it.
struct Operation {
  std::vector<at::Tensor> inputs;
  std::function<at::Tensor()> y;
};

// 37 sequences of 50 to 1074 tokens, 16384 in all.
std::vector<std::int32_t> uneven() {
  std::vector<std::int32_t> lengths;
  for (std::int32_t i = 0; i < 36; ++i) lengths.push_back(50 + i * 377 % 800);
  lengths.push_back(16384 - std::accumulate(lengths.begin(), lengths.end(), 0));
  return lengths;
}

ScanInput weights(const Shape& shape) {
  const auto floats = at::TensorOptions(at::kCUDA).dtype(at::kFloat);
  ScanInput in;
  in.dt = at::randn({shape.tokens(), shape.d_inner}, floats.dtype(at::kBFloat16)).requires_grad_(true);
  in.dt_bias = (at::randn({shape.d_inner}, floats) - 4).requires_grad_(true);
  in.A_log = at::arange(1, kState + 1, floats).log().expand({shape.d_inner, kState}).contiguous().requires_grad_(true);
  in.D = at::ones({shape.d_inner}, floats).requires_grad_(true);
  return in;
}

at::Tensor projection(const Shape& shape) {
  return at::randn({shape.tokens(), 2 * shape.d_inner + 2 * shape.d_inner / kRepeat},
                   at::TensorOptions(at::kCUDA).dtype(at::kBFloat16));
}

Operation scan(const Shape& shape) {
  ScanInput in = weights(shape);
  ConvInput unused;
  set_parts(projection(shape), unused, in);
  in.x = at::randn({shape.tokens(), shape.d_inner}, in.dt.options());
  for (at::Tensor* field : {&in.x, &in.B, &in.C, &in.z}) *field = field->detach().requires_grad_(true);
  return {{in.x, in.dt, in.dt_bias, in.A_log, in.B, in.C, in.D, in.z},
          [in, sequences = Sequences::of(shape.lengths, at::kCUDA)] { return selective_scan(in, sequences).y; }};
}

Operation mixer_core(const Shape& shape) {
  const ScanInput in = weights(shape);
  const at::Tensor zxBC = projection(shape).requires_grad_(true);
  ConvInput conv;
  conv.weight = at::randn({shape.d_inner, kWidth}, zxBC.options()).requires_grad_(true);
  conv.bias = at::randn({shape.d_inner}, zxBC.options()).requires_grad_(true);
  conv.repeat = kRepeat, conv.group_size = kState;
  return {{zxBC, conv.weight, conv.bias, in.dt, in.dt_bias, in.A_log, in.D},
          [=, sequences = Sequences::of(shape.lengths, at::kCUDA)] { return mamba_scan(zxBC, conv, in, sequences); }};
}

std::function<void()> work(const Operation& operation, Pass pass) {
  if (pass == Pass::forward)
    return [operation] {
      const c10::NoGradGuard no_gradients;
      operation.y();
    };
  const at::Tensor y = operation.y(), gradient = at::randn_like(y);
  if (pass == Pass::backward) return [=] { torch::autograd::grad({y}, operation.inputs, {gradient}, /*retain_graph=*/true); };
  return [=] { torch::autograd::grad({operation.y()}, operation.inputs, {gradient}); };
}

// Seconds. `x_columns`: of d_inner, as many are read of x, and written of its gradient.
double floor_of(const Shape& shape, Pass pass, double x_columns) {
  constexpr double exponentials = 0.26e-3 / (16384.0 * 4096);  // of a token and channel, once
  const double size = static_cast<double>(shape.tokens() * shape.d_inner);
  const double inputs = 3 + x_columns + 1.0 / kRepeat;  // x, dt, B, C and z, columns a channel
  const double forward = std::max(exponentials, 2 * (inputs + 1) / copy_rate());
  const double backward = std::max(exponentials, 2 * (2 * inputs + 1) / copy_rate());
  return size * (pass == Pass::forward ? forward : pass == Pass::backward ? backward : forward + backward);
}

using Make = Operation (*)(const Shape&);

void run(benchmark::State& state, Make make, const Shape& shape, Pass pass, bool graph) {
  at::manual_seed(1);
  const int calls = !graph ? 1 : shape.tokens() * shape.d_inner < 1 << 22 ? 50 : 4;
  const auto prepare = [&] { return work(make(shape), pass); };
  time_on_gpu(state, graph ? captured(prepare, calls) : prepare(), calls);
  const double floor = floor_of(shape, pass, make == scan ? 1 : 1.0 / kRepeat);
  state.counters["of floor"] = benchmark::Counter(floor, benchmark::Counter::kIsIterationInvariantRate);
}

void add(const std::string& operation, Make make, const Shape& shape, Pass pass, bool graph) {
  constexpr const char* names[] = {"/forward", "/backward", "/forward_backward"};
  const std::string name = operation + "/" + shape.name + names[static_cast<int>(pass)] + (graph ? "/cuda_graph" : "/cuda");
  benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) { run(state, make, shape, pass, graph); })
      ->UseManualTime()
      ->Iterations(20)
      ->Unit(benchmark::kMillisecond);
}

const bool registered = on_cuda([] {
  std::vector<Shape> shapes = {
      {"1x16384", {16384}, 4096}, {"4x4096", std::vector<std::int32_t>(4, 4096), 4096}, {"37_uneven", uneven(), 4096}};
  for (const std::int64_t d_inner : {512, 1024}) {
    shapes.push_back({"1x2048_d" + std::to_string(d_inner), {2048}, d_inner});
    shapes.push_back({"1x131072_d" + std::to_string(d_inner), {131072}, d_inner});
  }
  for (const Shape& shape : shapes) {
    for (const Pass pass : {Pass::forward, Pass::backward, Pass::both}) {
      add("scan", scan, shape, pass, true);
      add("mixer_core", mixer_core, shape, pass, true);
    }
    add("scan", scan, shape, Pass::both, false);
  }
});

}  // namespace scan_gpu_bench
}  // namespace molt::ops
#endif
