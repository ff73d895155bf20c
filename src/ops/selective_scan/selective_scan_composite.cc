// The selective scan by its formula, token by token.
#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>

#include "base/error.h"
#include "ops/selective_scan/selective_scan.h"

namespace molt::ops {

namespace scan_composite {

// (tokens, groups, state) from columns, each group `repeat` times in a row: group j serves j * repeat, …
at::Tensor repeated(const at::Tensor& columns, std::int64_t state, std::int64_t repeat) {
  const std::int64_t tokens = columns.size(0), groups = columns.size(1) / state;
  return columns.reshape({tokens, groups, 1, state})
      .expand({tokens, groups, repeat, state})
      .reshape({tokens, groups * repeat, state});
}

}  // namespace scan_composite

ScanOutput selective_scan_composite(const ScanInput& input, const Sequences& sequences, const ScanRequest& request) {
  const auto precision = input.x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const std::int64_t tokens = input.dt.size(0), d_inner = input.dt.size(1), state = input.A_log.size(1);
  const auto wide = [&](const at::Tensor& t) { return t.defined() ? t.to(precision).contiguous() : t; };

  const at::Tensor x = scan_composite::repeated(wide(input.x), state, d_inner / input.x.size(1)).reshape({tokens, d_inner});
  at::Tensor dt = wide(input.dt);
  if (input.dt_bias.defined()) dt = dt + wide(input.dt_bias);
  dt = at::where(dt > 20, dt, at::log1p(at::exp(at::clamp_max(dt, 20))));
  // One row of B and of C for each channel: (tokens, d_inner, state).
  const at::Tensor B = scan_composite::repeated(wide(input.B), state, d_inner / input.B.size(1)).repeat_interleave(state, 1);
  const at::Tensor C = scan_composite::repeated(wide(input.C), state, 1).repeat_interleave(state, 1);
  const auto decays = at::exp(dt.unsqueeze(-1) * -at::exp(wide(input.A_log))).unbind(0);
  const auto inputs = ((dt * x).unsqueeze(-1) * B).unbind(0);

  std::vector<at::Tensor> all, finals;
  for (std::int64_t s = 0; s < sequences.count(); ++s) {
    at::Tensor h = input.initial_state.defined() ? wide(input.initial_state)[s] : at::zeros({d_inner, state}, dt.options());
    for (std::int64_t t = sequences.offsets[s]; t < sequences.offsets[s + 1]; ++t) all.push_back(h = decays[t] * h + inputs[t]);
    finals.push_back(h);
  }
  const at::Tensor states = all.empty() ? at::zeros({0, d_inner, state}, dt.options()) : at::stack(all);
  at::Tensor y = (C * states).sum(-1);
  if (input.D.defined()) y = y + wide(input.D) * x;
  if (input.z.defined()) y = y * at::silu(wide(input.z));

  ScanOutput output{.y = y.to(input.x.scalar_type()), .final_state = {}, .states = {}};
  if (request.final_state) output.final_state = finals.empty() ? states : at::stack(finals);
  if (!request.positions.empty()) {
    output.states = states.detach().index_select(0, at::tensor(request.positions, at::kLong).to(states.device()));
  }
  return output;
}

}  // namespace molt::ops
