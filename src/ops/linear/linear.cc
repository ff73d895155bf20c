#include "ops/linear/linear.h"

#include <ATen/Functions.h>

#include "base/error.h"
#include "ops/autograd.h"
#include "ops/products.h"

namespace molt::ops {

namespace linear_operation {

at::Tensor weight_gradient(const at::Tensor& slope, const at::Tensor& input, const at::Tensor& weight) {
  if (!weight.is_leaf() || !weight.grad().defined()) return at::mm(slope.t(), input);
  add_product(weight.grad(), slope.t(), input);
  return {};
}

void check(const at::Tensor& input, const at::Tensor& weight, const std::vector<LowRankUpdate>& updates) {
  MOLT_CHECK(input.dim() == 2 && weight.dim() == 2 && input.size(1) == weight.size(1), "linear: input ", input.sizes(),
             ", weight ", weight.sizes());
  for (const LowRankUpdate& update : updates) {
    MOLT_CHECK(update.down.dim() == 2 && update.up.dim() == 2 && update.down.size(1) == weight.size(1) &&
                   update.up.size(1) == update.down.size(0) && update.first >= 0 &&
                   update.first + update.up.size(0) <= weight.size(0),
               "linear: weight ", weight.sizes(), ", an update of ", update.up.sizes(), " by ", update.down.sizes(), " from row ",
               update.first);
  }
}

// What backward knows of an update beside the saved tensors.
struct Place {
  std::int64_t first, rows;
  double scale;
};

constexpr std::size_t kInputs = 3, kSavedFirst = 2;  // before the updates', of inputs and of what is saved

}  // namespace linear_operation

at::Tensor linear(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias,
                  const std::vector<LowRankUpdate>& updates) {
  using namespace linear_operation;
  check(input, weight, updates);
  Tensors inputs{input, weight, bias};
  std::vector<Place> places;
  bool input_is_factor = weight.requires_grad();  // of a gradient
  for (const LowRankUpdate& update : updates) {
    inputs.insert(inputs.end(), {update.down, update.up});
    places.push_back({update.first, update.up.size(0), update.scale});
    input_is_factor = input_is_factor || update.down.requires_grad();
  }
  const auto forward = [&](Saved& saved) -> Tensors {
    if (saved.recording) saved.tensors = {input_is_factor ? input : at::Tensor(), weight};
    const at::Tensor output = bias.defined() ? at::addmm(bias, input, weight.t()) : at::mm(input, weight.t());
    for (const LowRankUpdate& update : updates) {
      const at::Tensor low = at::mm(input, update.down.t()).mul_(update.scale);
      add_product(output.narrow(1, update.first, update.up.size(0)), low, update.up.t());
      if (saved.recording) saved.tensors.insert(saved.tensors.end(), {update.down, update.up, low});
    }
    return {output};
  };
  const auto backward = [places](const Tensors& saved, const Tensors& slopes, const std::vector<bool>& needed) {
    Tensors gradients(needed.size());
    const at::Tensor &slope = slopes[0], &input = saved[0], &weight = saved[1];
    if (!slope.defined()) return gradients;
    if (needed[0]) gradients[0] = at::mm(slope, weight);
    if (needed[1]) gradients[1] = weight_gradient(slope, input, weight);
    if (needed[2]) gradients[2] = slope.sum(0);
    for (std::size_t i = 0; i < places.size(); ++i) {
      const at::Tensor &down = saved[kSavedFirst + 3 * i], &up = saved[kSavedFirst + 3 * i + 1],
                       &low = saved[kSavedFirst + 3 * i + 2];
      const at::Tensor own = slope.narrow(1, places[i].first, places[i].rows);
      const at::Tensor low_slope = at::mm(own, up).mul_(places[i].scale);
      if (needed[0]) add_product(gradients[0], low_slope, down);
      if (needed[kInputs + 2 * i]) gradients[kInputs + 2 * i] = weight_gradient(low_slope, input, down);
      if (needed[kInputs + 2 * i + 1]) gradients[kInputs + 2 * i + 1] = weight_gradient(own, low, up);
    }
    return gradients;
  };
  return record(inputs, forward, backward)[0];
}

}  // namespace molt::ops
