#include "train/average.h"

#include <ATen/Functions.h>
#include <c10/core/GradMode.h>

#include "base/error.h"

namespace molt {

AveragedWeights::AveragedWeights(double decay, const Optimizer& optimizer) : decay_(decay), optimizer_(optimizer) {
  if (!kept()) return;
  for (std::size_t i = 0; i < optimizer_.buffers().size(); ++i) averages_.push_back(optimizer_.weights(i).detach().clone());
}

void AveragedWeights::update() {
  const c10::NoGradGuard no_grad;
  for (std::size_t i = 0; i < averages_.size(); ++i) averages_[i].lerp_(optimizer_.weights(i), 1.0 - decay_);
}

std::vector<Parameter> AveragedWeights::state() const {
  std::vector<Parameter> result;
  for (std::size_t i = 0; i < averages_.size(); ++i) {
    for (const FlatBuffer::Piece& piece : optimizer_.buffers()[i].pieces) {
      result.push_back(
          {piece.name + ".average", averages_[i].narrow(0, piece.offset, piece.value.numel()).view(piece.value.sizes())});
    }
  }
  return result;
}

void AveragedWeights::restore(const std::vector<Parameter>& tensors, const std::string& place) {
  const c10::NoGradGuard no_grad;
  std::map<std::string, at::Tensor> saved;
  for (const Parameter& tensor : tensors) saved[tensor.name] = tensor.value;
  for (const Parameter& own : state()) {
    const auto found = saved.find(own.name);
    require(found != saved.end(), place, ": ", own.name, ": found no such tensor, expected a weight's average");
    require(found->second.sizes() == own.value.sizes(), place, ": ", own.name, ": found ", found->second.sizes(), ", expected ",
            own.value.sizes());
    at::Tensor target = own.value;
    target.copy_(found->second);
  }
}

}  // namespace molt
