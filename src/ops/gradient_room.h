// Gradients that are wanted in memory that exists.
#pragma once
#include <ATen/core/Tensor.h>

namespace molt::ops {

// Moves a gradient to its room, if that is defined, unless it was computed there; its dtype becomes the room's.
inline void place(at::Tensor& gradient, const at::Tensor& room) {
  if (!room.defined() || gradient.is_same(room)) return;
  gradient = at::Tensor(room).copy_(gradient);
}

}  // namespace molt::ops
