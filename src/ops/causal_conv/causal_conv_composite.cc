#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>

#include "base/error.h"
#include "ops/causal_conv/causal_conv.h"

namespace molt::ops {

namespace conv_rows {

// The rows that a convolution can see: those of the pack, then each sequence's initial window (or one row of zeros).
at::Tensor pool(const ConvInput& input) {
  if (!input.initial_window.defined()) return at::cat({input.x, at::zeros({1, input.x.size(1)}, input.x.options())});
  return at::cat({input.x, input.initial_window.transpose(1, 2).reshape({-1, input.x.size(1)})});
}

// Where in pool() the row lies that is `back` rows before row `position` of a sequence (position -1: nothing of it is read yet).
std::int64_t row(const ConvInput& input, const Sequences& sequences, std::int64_t sequence, std::int64_t position,
                 std::int64_t back) {
  const std::int64_t taps = input.weight.size(1) - 1;
  if (position >= back) return sequences.offsets[static_cast<std::size_t>(sequence)] + position - back;
  return sequences.tokens() + (input.initial_window.defined() ? sequence * taps + taps + position - back : 0);
}

// The windows after row `position` of a sequence, for each pair of (sequence, position).
at::Tensor windows(const ConvInput& input, const Sequences& sequences,
                   const std::vector<std::pair<std::int64_t, std::int64_t>>& after) {
  const std::int64_t taps = input.weight.size(1) - 1;
  std::vector<std::int64_t> rows;
  for (const auto& [sequence, position] : after)
    for (std::int64_t j = 0; j < taps; ++j) rows.push_back(row(input, sequences, sequence, position, taps - 1 - j));
  const at::Tensor index = at::tensor(rows, at::kLong).to(input.x.device());
  return pool(input)
      .index_select(0, index)
      .view({static_cast<std::int64_t>(after.size()), taps, input.x.size(1)})
      .transpose(1, 2);
}

}  // namespace conv_rows

at::Tensor causal_conv_composite(const ConvInput& input, const Sequences& sequences) {
  const std::int64_t channels = input.weight.size(0), width = input.weight.size(1);
  const auto compute = input.x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor rows = conv_rows::pool(input).to(compute);
  const at::Tensor channel = at::arange(channels, at::TensorOptions(at::kLong).device(input.x.device()));
  const at::Tensor column =
      channel.floor_divide(input.group_size * input.repeat) * input.group_size + channel.remainder(input.group_size);
  at::Tensor y = at::zeros({sequences.tokens(), channels}, rows.options());
  for (std::int64_t k = 0; k < width; ++k) {
    std::vector<std::int64_t> index;
    for (std::int64_t s = 0; s < sequences.count(); ++s)
      for (std::int64_t p = 0; p < sequences.length(s); ++p)
        index.push_back(conv_rows::row(input, sequences, s, p, width - 1 - k));
    const at::Tensor seen = rows.index_select(0, at::tensor(index, at::kLong).to(input.x.device()));
    y = y + seen.index_select(1, column) * input.weight.select(1, k).to(compute);
  }
  if (input.bias.defined()) y = y + input.bias.to(compute);
  if (input.silu) y = at::silu(y);
  return y.to(input.x.scalar_type());
}

at::Tensor causal_conv_final_windows(const ConvInput& input, const Sequences& sequences) {
  std::vector<std::pair<std::int64_t, std::int64_t>> after;
  for (std::int64_t s = 0; s < sequences.count(); ++s) after.push_back({s, sequences.length(s) - 1});
  return conv_rows::windows(input, sequences, after);
}

at::Tensor causal_conv_windows(const ConvInput& input, const Sequences& sequences, const std::vector<std::int64_t>& positions) {
  std::vector<std::pair<std::int64_t, std::int64_t>> after;
  for (const std::int64_t position : positions) {
    MOLT_CHECK(position >= 0 && position < sequences.tokens(), "position ", position, " of ", sequences.tokens());
    const auto next = std::upper_bound(sequences.offsets.begin(), sequences.offsets.end(), position);
    const auto sequence = next - sequences.offsets.begin() - 1;
    after.push_back({sequence, position - sequences.offsets[static_cast<std::size_t>(sequence)]});
  }
  return conv_rows::windows(input, sequences, after);
}

}  // namespace molt::ops
