// The causal convolution by its formula, and the windows with which sequences go on, in plain tensor operations.
#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>

#include <algorithm>

#include "base/error.h"
#include "ops/causal_conv/causal_conv.h"

namespace molt::ops {

namespace conv_composite {

// The windows after the first counts[i] tokens of sequences owners[i]: (n, columns, width - 1).
at::Tensor windows(const ConvInput& input, const Sequences& sequences, const std::vector<std::int64_t>& owners,
                   const std::vector<std::int64_t>& counts) {
  const std::int64_t taps = input.weight.size(1) - 1, n = static_cast<std::int64_t>(owners.size());
  const std::int64_t columns = input.x.size(1);
  if (n == 0) return at::zeros({0, columns, taps}, input.x.options());
  // Row j of a window is x[first + j], or, where that is before the sequence, row first + j + taps of its initial window.
  std::vector<std::int64_t> in_x, in_initial;
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t j = 0; j < taps; ++j) {
      const std::int64_t place = counts[i] - taps + j;
      in_x.push_back(place >= 0 ? sequences.offsets[owners[i]] + place : -1);
      in_initial.push_back(place >= 0 ? -1 : owners[i] * taps + place + taps);
    }
  }
  const auto gather = [&](const at::Tensor& rows, const std::vector<std::int64_t>& places) {
    const at::Tensor index = at::tensor(places, at::kLong).to(rows.device());
    if (rows.size(0) == 0) return at::zeros({index.size(0), columns}, rows.options());
    const at::Tensor found = rows.index_select(0, index.clamp_min(0));
    return at::where((index >= 0).unsqueeze(1), found, at::zeros({}, rows.options()));
  };
  at::Tensor rows = gather(input.x, in_x);
  if (input.initial_window.defined()) {
    rows = rows + gather(input.initial_window.transpose(1, 2).reshape({-1, columns}).to(rows.scalar_type()), in_initial);
  }
  return rows.view({n, taps, columns}).transpose(1, 2).contiguous();
}

}  // namespace conv_composite

at::Tensor causal_conv_composite(const ConvInput& input, const Sequences& sequences) {
  const auto precision = input.x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const std::int64_t tokens = input.x.size(0), columns = input.x.size(1), channels = input.weight.size(0),
                     width = input.weight.size(1);
  const at::Tensor weight = input.weight.to(precision);
  std::vector<at::Tensor> results = {at::zeros({0, channels}, weight.options())};
  for (std::int64_t s = 0; s < sequences.count(); ++s) {
    const std::int64_t length = sequences.length(s);
    const at::Tensor before = input.initial_window.defined() ? input.initial_window[s].t().to(precision)
                                                             : at::zeros({width - 1, columns}, weight.options());
    at::Tensor rows = at::cat({before, input.x.narrow(0, sequences.offsets[s], length).to(precision)});
    rows = rows.view({width - 1 + length, -1, 1, input.repeat == 1 ? columns : input.group_size});
    rows = rows.expand({-1, -1, input.repeat, -1}).reshape({width - 1 + length, channels});
    at::Tensor y = at::zeros({length, channels}, weight.options());
    for (std::int64_t k = 0; k < width; ++k) y = y + weight.select(1, k) * rows.narrow(0, k, length);
    results.push_back(y);
  }
  at::Tensor y = at::cat(results);
  MOLT_CHECK(y.size(0) == tokens, "the sequences hold ", y.size(0), " of ", tokens, " tokens");
  if (input.bias.defined()) y = y + input.bias.to(precision);
  return (input.silu ? at::silu(y) : y).to(input.x.scalar_type());
}

at::Tensor causal_conv_final_windows(const ConvInput& input, const Sequences& sequences) {
  std::vector<std::int64_t> owners, counts;
  for (std::int64_t s = 0; s < sequences.count(); ++s) {
    owners.push_back(s);
    counts.push_back(sequences.length(s));
  }
  return conv_composite::windows(input, sequences, owners, counts);
}

at::Tensor causal_conv_windows(const ConvInput& input, const Sequences& sequences, const std::vector<std::int64_t>& positions) {
  std::vector<std::int64_t> owners, counts;
  for (const std::int64_t position : positions) {
    MOLT_CHECK(position >= 0 && position < sequences.tokens(), "position ", position, " of ", sequences.tokens(), " tokens");
    const auto next = std::upper_bound(sequences.offsets.begin(), sequences.offsets.end(), position);
    owners.push_back(next - sequences.offsets.begin() - 1);
    counts.push_back(position + 1 - *(next - 1));
  }
  return conv_composite::windows(input, sequences, owners, counts);
}

}  // namespace molt::ops
