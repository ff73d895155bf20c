// How linear_loss cuts up its tokens, and the memory for their logits.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace molt::ops {

// A chunk's gradients enter one product, its logits exist part by part: logits and their gradients take some tens of MB (CPU) or
// up to 1.5 GB (CUDA).
struct LossChunks {
  std::int64_t rows = 0;            // tokens of a chunk
  std::vector<std::int64_t> parts;  // their tokens, one after the other; of a last chunk that is shorter, as many as it has
  bool own_slope = false;           // gradients of logits are bf16 and kept beside the logits, not written over them
  double bytes = 0;                 // of both
};
LossChunks loss_chunks(std::int64_t tokens, std::int64_t vocabulary, bool teacher, bool gradient, at::ScalarType dtype,
                       at::Device device);

// The memory for the chunks of one call, used again by each of them.
class LossMemory {
 public:
  // dtype: of logits.
  LossMemory(const LossChunks& chunks, std::int64_t vocabulary, at::ScalarType dtype, at::Device device);

  // (rows, vocabulary) of a whole chunk: d loss / d logits, bf16 where it is kept beside the logits.
  at::Tensor slope() const;
  // (end - begin, vocabulary) for the part [begin, end) of a chunk, of the student or the teacher. Valid until the next part's.
  at::Tensor logits(std::int64_t begin, std::int64_t end, bool of_teacher) const;

 private:
  at::Tensor rows(std::int64_t at_byte, std::int64_t count, at::ScalarType dtype) const;

  at::Tensor bytes_;
  std::int64_t rows_, vocabulary_;
  at::ScalarType dtype_;
  bool own_slope_;
};

}  // namespace molt::ops
