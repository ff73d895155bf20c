#include "train/layer_norms.h"

#include <ATen/Functions.h>

namespace molt {

namespace layer_norms {

// The first name, with its number where it has one.
std::string part_of(const std::string& parameter) {
  std::size_t end = parameter.find('.');
  if (parameter.starts_with("layers.")) end = parameter.find('.', end + 1);
  return parameter.substr(0, end);
}

}  // namespace layer_norms

std::map<std::string, at::Tensor> layer_gradient_norms(const std::vector<FlatBuffer>& buffers, double divisor) {
  std::map<std::string, std::vector<at::Tensor>> by_part;
  for (const FlatBuffer& buffer : buffers) {
    for (const FlatBuffer::Piece& piece : buffer.pieces) {
      const at::Tensor gradient = buffer.gradients.narrow(0, piece.offset, piece.value.numel());
      by_part[layer_norms::part_of(piece.name)].push_back(at::linalg_vector_norm(gradient, 2, std::nullopt, false, at::kDouble));
    }
  }
  std::map<std::string, at::Tensor> norms;
  for (const auto& [part, pieces] : by_part) norms[part] = at::linalg_vector_norm(at::stack(pieces), 2).div_(divisor);
  return norms;
}

}  // namespace molt
