#include "ops/shared_sums.h"

#include <ATen/Functions.h>
#include <c10/core/DeviceGuard.h>

#include "ops/cuda_dispatch.h"
#include "ops/sum_shares.h"

namespace molt::ops {

at::Tensor SharedSums::add(const at::Tensor& shares, const at::Tensor& like) {
  if (!shares.defined()) return shares;
  if (!has_cuda_kernel(like)) return shares.sum(0).to(like.scalar_type());
  return pending_.emplace_back(Sum{shares, at::empty(shares.sizes().slice(1), like.options())}).to;
}

void SharedSums::finish() {
#ifdef MOLT_CUDA
  if (pending_.empty()) return;
  const c10::DeviceGuard guard(pending_[0].to.device());
  MOLT_CHECK(pending_.size() <= kMostSums, pending_.size(), " sums for a kernel of ", kMostSums);
  std::vector<Shares> sums;
  for (const Sum& sum : pending_) {
    sums.push_back({.shares = sum.shares.const_data_ptr<float>(),
                    .parts = sum.shares.size(0),
                    .columns = sum.to.numel(),
                    .to = mutable_data(sum.to),
                    .type = data_type(sum.to)});
  }
  cuda_sum_shares(sums, cuda_stream());
#endif
  pending_.clear();
}

}  // namespace molt::ops
