#include "model/parameters.h"

#include <ATen/Functions.h>
#include <c10/core/GradMode.h>

#include <map>
#include <set>
#include <utility>

#include "base/error.h"

namespace molt {

namespace parameters_detail {

constexpr std::int64_t alignment = 64;  // bytes: a cache line, and enough for every vector instruction

// Sums over many micro-batches lose too much in 16 bits.
at::ScalarType gradient_dtype(at::ScalarType values) {
  return values == at::kDouble ? at::kDouble : at::kFloat;
}

at::Tensor piece_of(const at::Tensor& buffer, const FlatBuffer::Piece& piece) {
  return buffer.narrow(0, piece.offset, piece.value.numel()).view(piece.value.sizes());
}

}  // namespace parameters_detail

std::vector<Parameter> collect_parameters(const std::function<void(const ParameterVisitor&)>& visit) {
  std::vector<Parameter> parameters;
  visit([&](const std::string& name, at::Tensor& value) { parameters.push_back({name, value}); });
  return parameters;
}

std::vector<FlatBuffer> flatten_trainable(const std::function<void(const ParameterVisitor&)>& visit,
                                          const std::function<bool(const std::string&)>& trainable,
                                          const std::function<bool(const std::string&, const at::Tensor&)>& apart) {
  using namespace parameters_detail;
  c10::AutoGradMode no_recording(false);

  std::vector<FlatBuffer> buffers;
  std::vector<std::int64_t> sizes;
  std::vector<bool> are_apart;
  std::set<std::string> seen;
  std::map<std::string, at::Tensor> leaves;
  visit([&](const std::string& name, at::Tensor& value) {
    MOLT_CHECK(seen.insert(name).second, "parameter ", name, " is named twice");
    if (!trainable(name)) {
      if (value.requires_grad()) value = value.detach();
      return;
    }
    MOLT_CHECK(!value.is_meta(), "parameter ", name, " was neither loaded nor initialised");
    const bool is_apart = apart && apart(name, value);
    std::size_t place = 0;
    const auto fits = [&](const at::Tensor& values) {
      return values.device() == value.device() && values.scalar_type() == value.scalar_type() && are_apart[place] == is_apart;
    };
    while (place < buffers.size() && !fits(buffers[place].values)) ++place;
    if (place == buffers.size()) {
      buffers.push_back({at::empty({0}, value.options().requires_grad(false)), {}, {}});
      sizes.push_back(0);
      are_apart.push_back(is_apart);
    }
    const std::int64_t step = alignment / value.element_size();
    buffers[place].pieces.push_back({name, sizes[place], value});
    sizes[place] += (value.numel() + step - 1) / step * step;
  });

  for (std::size_t i = 0; i < buffers.size(); ++i) {
    FlatBuffer& buffer = buffers[i];
    buffer.values = at::zeros({sizes[i]}, buffer.values.options());
    for (FlatBuffer::Piece& piece : buffer.pieces) {
      const at::Tensor leaf = piece_of(buffer.values, piece).detach();
      leaf.copy_(piece.value);
      leaf.set_requires_grad(true);
      const at::ScalarType dtype = gradient_dtype(leaf.scalar_type());
      if (dtype != leaf.scalar_type()) leaf.set_grad_dtype(dtype);
      piece.value = leaf;
      leaves[piece.name] = leaf;
    }
  }
  visit([&](const std::string& name, at::Tensor& value) {
    if (const auto leaf = leaves.find(name); leaf != leaves.end()) value = leaf->second;
  });
  return buffers;
}

void zero_gradients(FlatBuffer& buffer) {
  using namespace parameters_detail;
  if (buffer.gradients.defined()) {
    buffer.gradients.zero_();
  } else {
    buffer.gradients = at::zeros_like(buffer.values, buffer.values.options().dtype(gradient_dtype(buffer.values.scalar_type())));
  }
  for (const FlatBuffer::Piece& piece : buffer.pieces) {
    at::Tensor& gradient = piece.value.mutable_grad();
    if (!gradient.defined() || gradient.storage().data() != buffer.gradients.storage().data()) {
      gradient = piece_of(buffer.gradients, piece);
    }
  }
}

}  // namespace molt
