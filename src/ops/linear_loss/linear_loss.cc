#include "ops/linear_loss/linear_loss.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <memory>

#include "base/error.h"
#include "ops/autograd.h"
#include "ops/linear_loss/loss_chunk.h"

namespace molt::ops {

namespace linear_loss_operation {

bool has_divergence(const LossMix& mix) {
  return mix.forward_kl != 0 || mix.reverse_kl != 0;
}

at::ScalarType wide(const at::Tensor& tensor) {
  return tensor.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

// The tokens that carry loss.
struct Kept {
  at::Tensor index;  // int64, ascending; undefined: all
  std::int64_t count;

  at::Tensor rows(const at::Tensor& of, std::int64_t begin, std::int64_t end) const {
    if (!of.defined()) return of;
    return index.defined() ? of.index_select(0, index.slice(0, begin, end)) : of.slice(0, begin, end);
  }
  at::Tensor rows(const at::Tensor& of) const { return rows(of, 0, count); }
  // The rows of a tensor over kept tokens at their places among all, zeros elsewhere.
  at::Tensor spread(const at::Tensor& rows, std::int64_t tokens) const {
    if (!rows.defined() || !index.defined()) return rows;
    return at::zeros({tokens}, rows.options()).index_copy_(0, index, rows);
  }
};

Kept kept_tokens(std::int64_t tokens, const at::Tensor& targets, const at::Tensor& weights) {
  at::Tensor keep;
  if (weights.defined()) keep = weights.ne(0);
  if (targets.defined()) keep = keep.defined() ? keep.logical_and_(targets.ne(ignored_target)) : targets.ne(ignored_target);
  if (!keep.defined()) return {{}, tokens};
  const at::Tensor index = keep.nonzero().squeeze(1);
  return index.size(0) == tokens ? Kept{{}, tokens} : Kept{index, index.size(0)};
}

at::Tensor logits_of(const at::Tensor& hidden, const at::Tensor& weight) {
  // The product of half-precision matrices is asked for in fp32: rounding logits would show in small divergences.
  if (hidden.is_cuda() && hidden.scalar_type() != wide(hidden)) return at::mm(hidden, weight.t(), at::kFloat);
  return hidden.mm(weight.t()).to(wide(hidden));
}

// Gradients of the sum, by hidden (tokens, hidden) and by weight; undefined where not wanted.
struct HeadGradients {
  at::Tensor hidden, weight;
};

// Adds one chunk's part of the gradients.
void add_gradients(const at::Tensor& slope, const at::Tensor& chunk_hidden, const at::Tensor& weight, const Kept& kept,
                   std::int64_t begin, HeadGradients& gradients) {
  const at::Tensor d = slope.to(weight.scalar_type());
  const std::int64_t end = begin + d.size(0);
  if (gradients.hidden.defined()) {
    if (kept.index.defined()) {
      gradients.hidden.index_copy_(0, kept.index.slice(0, begin, end), d.mm(weight));
    } else {
      at::Tensor rows = gradients.hidden.slice(0, begin, end);
      at::mm_out(rows, d, weight);
    }
  }
  if (!gradients.weight.defined()) return;
  if (begin == 0)
    at::mm_out(gradients.weight, d.t(), chunk_hidden);
  else
    gradients.weight.addmm_(d.t(), chunk_hidden);
}

struct Inputs {
  at::Tensor hidden, weight, targets, weights;
  LossMix mix;
  TeacherHead teacher;
};

// Losses of the kept tokens, and what `gradients` holds room for.
TokenLosses run_chunks(const Inputs& in, const Kept& kept, HeadGradients& gradients) {
  const at::TensorOptions options = in.hidden.options().dtype(wide(in.hidden));
  const TokenLosses losses = empty_losses(kept.count, in.mix, in.targets.defined(), options);
  const at::Tensor weights = in.weights.defined() ? kept.rows(in.weights).to(options) : at::ones({kept.count}, options);
  const bool gradient = gradients.hidden.defined() || gradients.weight.defined();
  if (gradient && kept.count == 0 && gradients.weight.defined()) gradients.weight.zero_();
  const std::int64_t most = loss_chunk_rows(in.weight.size(0), in.hidden.device());
  for (std::int64_t begin = 0; begin < kept.count; begin += most) {
    const std::int64_t end = std::min(kept.count, begin + most);
    const auto part = [&](const at::Tensor& of) { return of.defined() ? of.slice(0, begin, end) : of; };
    const at::Tensor hidden = kept.rows(in.hidden, begin, end);
    const Chunk chunk{
        .logits = logits_of(hidden, in.weight),
        .teacher = has_divergence(in.mix) ? logits_of(kept.rows(in.teacher.hidden, begin, end), in.teacher.weight) : at::Tensor(),
        .targets = in.targets.defined() ? kept.rows(in.targets, begin, end).contiguous() : at::Tensor(),
        .weights = part(weights)};
    const TokenLosses own{part(losses.cross_entropy), part(losses.forward_kl), part(losses.reverse_kl)};
    const at::Tensor slope = chunk_losses(chunk, in.mix, gradient, own);
    if (gradient) add_gradients(slope, hidden, in.weight, kept, begin, gradients);
  }
  return losses;
}

at::Tensor weighted_sum(const TokenLosses& losses, const at::Tensor& weights, const LossMix& mix,
                        const at::TensorOptions& options) {
  at::Tensor sum = at::zeros({}, options);
  const auto add = [&](const at::Tensor& part, double coefficient) {
    if (coefficient != 0) sum.add_((weights.defined() ? part * weights : part).sum(), coefficient);
  };
  add(losses.cross_entropy, mix.cross_entropy);
  add(losses.forward_kl, mix.forward_kl);
  add(losses.reverse_kl, mix.reverse_kl);
  return sum;
}

void check(const Inputs& in) {
  const auto tokens = in.hidden.size(0);
  MOLT_CHECK(in.hidden.dim() == 2 && in.weight.dim() == 2 && in.hidden.size(1) == in.weight.size(1) &&
                 in.hidden.scalar_type() == in.weight.scalar_type(),
             "linear_loss: hidden ", in.hidden.sizes(), ", weight ", in.weight.sizes());
  MOLT_CHECK(in.mix.cross_entropy == 0 || in.targets.defined(), "linear_loss: cross-entropy needs targets");
  MOLT_CHECK(
      !in.targets.defined() || (in.targets.dim() == 1 && in.targets.size(0) == tokens && in.targets.scalar_type() == at::kLong),
      "linear_loss: ", tokens, " tokens, targets ", in.targets.sizes());
  MOLT_CHECK(!in.weights.defined() || (in.weights.dim() == 1 && in.weights.size(0) == tokens), "linear_loss: ", tokens,
             " tokens, loss_weights ", in.weights.sizes());
  MOLT_CHECK(in.mix.temperature > 0, "linear_loss: temperature ", in.mix.temperature);
  if (!has_divergence(in.mix)) return;
  const TeacherHead& teacher = in.teacher;
  MOLT_CHECK(teacher.hidden.defined() && teacher.weight.defined() && teacher.hidden.size(0) == tokens &&
                 teacher.hidden.size(1) == teacher.weight.size(1) && teacher.weight.size(0) == in.weight.size(0) &&
                 wide(teacher.hidden) == wide(in.hidden),
             "linear_loss: teacher's hidden ", teacher.hidden.sizes(), " and head ", teacher.weight.sizes(), ", student's head ",
             in.weight.sizes());
}

}  // namespace linear_loss_operation

std::int64_t loss_chunk_rows(std::int64_t vocabulary, at::Device device) {
  const std::int64_t bytes = device.is_cuda() ? 512 << 20 : 32 << 20, least = device.is_cuda() ? 512 : 256;
  return std::clamp<std::int64_t>(bytes / (4 * std::max<std::int64_t>(vocabulary, 1)), least, 16 * least);
}

LossResult linear_loss(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& targets,
                       const at::Tensor& loss_weights, const LossMix& mix, const TeacherHead& teacher) {
  using namespace linear_loss_operation;
  const Inputs in{hidden, weight, targets, loss_weights, mix, teacher};
  check(in);
  const std::int64_t tokens = hidden.size(0);
  const Kept kept = kept_tokens(tokens, targets, loss_weights);
  LossResult result;
  result.tokens = kept.count;
  const auto gradients = std::make_shared<HeadGradients>();
  result.sum = record(
      {hidden, weight},
      [&](Saved& saved) -> Tensors {
        if (saved.recording && hidden.requires_grad())
          gradients->hidden = kept.index.defined() ? at::zeros_like(hidden) : at::empty_like(hidden);
        if (saved.recording && weight.requires_grad()) gradients->weight = at::empty_like(weight);
        const TokenLosses losses = run_chunks(in, kept, *gradients);
        result.cross_entropy = kept.spread(losses.cross_entropy, tokens);
        result.forward_kl = kept.spread(losses.forward_kl, tokens);
        result.reverse_kl = kept.spread(losses.reverse_kl, tokens);
        return {weighted_sum(losses, kept.rows(loss_weights), mix, hidden.options().dtype(wide(hidden)))};
      },
      [gradients](const Tensors&, const Tensors& outer, const std::vector<bool>&) -> Tensors {
        // Scaled in place and given away, so that the head's gradient is never in memory twice.
        HeadGradients own = std::move(*gradients);
        MOLT_CHECK(own.hidden.defined() || own.weight.defined(), "linear_loss: backward ran a second time");
        if (own.hidden.defined()) own.hidden.mul_(outer[0]);
        if (own.weight.defined()) own.weight.mul_(outer[0]);
        return {std::move(own.hidden), std::move(own.weight)};
      })[0];
  return result;
}

LossResult linear_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& targets,
                                const at::Tensor& loss_weights) {
  return linear_loss(hidden, weight, targets, loss_weights, {.cross_entropy = 1});
}

at::Tensor log_probs(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& targets) {
  c10::AutoGradMode no_recording(false);
  return linear_cross_entropy(hidden, weight, targets).cross_entropy.neg();
}

LossResult linear_loss_composite(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& targets,
                                 const at::Tensor& loss_weights, const LossMix& mix, const TeacherHead& teacher) {
  using namespace linear_loss_operation;
  check({hidden, weight, targets, loss_weights, mix, teacher});
  const at::ScalarType dtype = wide(hidden);
  at::Tensor weights =
      loss_weights.defined() ? loss_weights.to(dtype) : at::ones({hidden.size(0)}, hidden.options().dtype(dtype));
  if (targets.defined()) weights = weights * targets.ne(ignored_target);
  const at::Tensor counts = weights.ne(0), logits = hidden.matmul(weight.t()).to(dtype);
  LossResult result;
  result.tokens = counts.sum().item<std::int64_t>();
  result.sum = at::zeros({}, weights.options());
  const auto add = [&](const at::Tensor& loss, double coefficient) -> at::Tensor {
    result.sum = result.sum + coefficient * (loss * weights).sum();
    return loss.detach() * counts;
  };
  if (targets.defined()) {
    const at::Tensor chosen = logits.log_softmax(1).gather(1, targets.clamp_min(0).unsqueeze(1)).squeeze(1);
    result.cross_entropy = add(-chosen, mix.cross_entropy);
  }
  if (has_divergence(mix)) {
    const at::Tensor s = (logits / mix.temperature).log_softmax(1);
    const at::Tensor t = (teacher.hidden.matmul(teacher.weight.t()).to(dtype) / mix.temperature).log_softmax(1).detach();
    if (mix.forward_kl != 0) result.forward_kl = add((t.exp() * (t - s)).sum(1), mix.forward_kl);
    if (mix.reverse_kl != 0) result.reverse_kl = add((s.exp() * (s - t)).sum(1), mix.reverse_kl);
  }
  return result;
}

}  // namespace molt::ops
