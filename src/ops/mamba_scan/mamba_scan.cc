#include "ops/mamba_scan/mamba_scan.h"

#include <ATen/Functions.h>

#include "base/error.h"
#include "ops/autograd.h"
#include "ops/causal_conv/causal_conv_node.h"
#include "ops/selective_scan/selective_scan_node.h"

namespace molt::ops {

namespace mamba_scan_operation {

constexpr std::size_t kScanInputs = 9;

// `settings` are the convolution's without tensors. Saved are its x, weight and bias, and then what the scan saves.
Tensors backward(const ConvInput& settings, const Tensors& saved, const Sequences& sequences, const at::Tensor& y) {
  ConvInput conv = settings;
  conv.x = saved[0], conv.weight = saved[1], conv.bias = saved[2];
  const ScanInput scan = scan::unpack({saved.begin() + 3, saved.begin() + 3 + kScanInputs});

  const at::Tensor whole = at::empty({conv.x.size(0), 2 * (scan.z.size(1) + conv.x.size(1))}, conv.x.options());
  ConvInput conv_room;
  ScanInput scan_room;
  scan_room.A_log = scan.A_log;
  set_parts(whole, conv_room, scan_room);
  SharedSums sums;
  const ScanInput of_scan =
      scan::unpack(scan::backward(scan, saved.back(), sequences, y, {}, std::vector<bool>(kScanInputs, true),
                                  {.B = scan_room.B, .C = scan_room.C, .z = scan_room.z}, sums));
  const Tensors of_conv = conv::backward(conv, sequences, of_scan.x, std::vector<bool>(4, false), conv_room.x, sums);
  sums.finish();
  return {whole, of_conv[1], of_conv[2], of_scan.dt, of_scan.dt_bias, of_scan.A_log, of_scan.D};
}

}  // namespace mamba_scan_operation

void set_parts(const at::Tensor& zxBC, ConvInput& conv, ScanInput& scan) {
  const std::int64_t d_inner = scan.A_log.size(0), d_xb = zxBC.size(1) / 2 - d_inner;
  scan.z = zxBC.narrow(1, 0, d_inner);
  conv.x = zxBC.narrow(1, d_inner, d_xb);
  scan.B = zxBC.narrow(1, d_inner + d_xb, d_xb);
  scan.C = zxBC.narrow(1, d_inner + 2 * d_xb, d_inner);
}

at::Tensor mamba_scan(const at::Tensor& zxBC, const ConvInput& conv, const ScanInput& scan, const Sequences& sequences) {
  ConvInput conv_in = conv;
  ScanInput scan_in = scan;
  set_parts(zxBC, conv_in, scan_in);
  MOLT_CHECK(!conv.initial_window.defined() && !scan.initial_state.defined(), "mamba_scan begins from zeros");
  conv::check(conv_in, sequences.tokens(), sequences.count());
  scan_in.x = conv_in.x;
  if (!conv::has_kernel(conv_in) || !scan::has_kernel(scan_in)) {
    scan_in.x = causal_conv(conv_in, sequences);
    return selective_scan(scan_in, sequences).y;
  }
  ConvInput settings = conv;
  settings.weight = settings.bias = at::Tensor();
  return record(
      {zxBC, conv.weight, conv.bias, scan.dt, scan.dt_bias, scan.A_log, scan.D},
      [&](Saved& saved) {
        scan::check(scan_in, sequences.tokens(), sequences.count());
        const bool in_one = scan::takes_convolution(scan_in, conv_in);
        if (!in_one) scan_in.x = conv::forward(conv_in, sequences);
        Tensors outputs = scan::forward(scan_in, sequences, {}, saved, in_one ? &conv_in : nullptr);
        saved.tensors.insert(saved.tensors.begin(), {conv_in.x, conv.weight, conv.bias});
        return outputs;
      },
      [sequences, settings](const Tensors& saved, const Tensors& gradients, const std::vector<bool>&) {
        return mamba_scan_operation::backward(settings, saved, sequences, gradients[0]);
      })[0];
}

}  // namespace molt::ops
