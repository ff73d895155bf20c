#include "ops/linear_loss/linear_loss.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "base/error.h"
#include "ops/autograd.h"
#include "ops/linear_loss/loss_chunk.h"
#include "ops/linear_loss/loss_memory.h"
#include "ops/products.h"

namespace molt::ops {

namespace linear_loss_operation {

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

Kept kept_tokens(std::int64_t tokens, const at::Tensor& targets, const at::Tensor& weights, const at::Tensor& known) {
  at::Tensor index = known;
  if (!index.defined()) {
    at::Tensor keep;
    if (weights.defined()) keep = weights.ne(0);
    if (targets.defined()) keep = keep.defined() ? keep.logical_and_(targets.ne(ignored_target)) : targets.ne(ignored_target);
    if (!keep.defined()) return {{}, tokens};
    index = keep.nonzero().squeeze(1);
  }
  return index.size(0) == tokens ? Kept{{}, tokens} : Kept{index, index.size(0)};
}

struct Inputs {
  at::Tensor hidden, weight, targets, weights;
  LossMix mix;
  TeacherHead teacher;
  LossOptions options;
};

// Where the gradients of the sum go, by hidden (tokens, hidden) and by weight; undefined where not wanted.
struct HeadGradients {
  at::Tensor hidden, weight;
  bool added = false;  // weight is the parameter's own gradient, to which this one is added

  bool wanted() const { return hidden.defined() || weight.defined(); }
};

HeadGradients room_for_gradients(const Inputs& in, const Kept& kept) {
  HeadGradients room;
  if (in.hidden.requires_grad()) room.hidden = kept.index.defined() ? at::zeros_like(in.hidden) : at::empty_like(in.hidden);
  if (!in.weight.requires_grad()) return room;
  room.added = in.options.add_weight_gradient;
  if (room.added) {
    room.weight = in.weight.grad();
    MOLT_CHECK(room.weight.defined(), "linear_loss: there is no gradient to add to");
  } else {
    // Sums over many chunks lose too much in 16 bits.
    const bool narrow = in.weight.is_cuda() && in.weight.scalar_type() != sum_dtype(in.weight);
    room.weight = at::zeros_like(in.weight, in.weight.options().dtype(narrow ? at::kFloat : in.weight.scalar_type()));
  }
  return room;
}

// Adds one chunk's part of the gradients.
void add_gradients(const at::Tensor& slope, const at::Tensor& chunk_hidden, const at::Tensor& weight, const Kept& kept,
                   std::int64_t begin, const HeadGradients& gradients) {
  const at::Tensor d = slope.to(weight.scalar_type());  // of the chunk's (tokens, vocabulary) logits
  const std::int64_t end = begin + d.size(0);
  if (gradients.hidden.defined()) {
    if (kept.index.defined()) {
      at::Tensor(gradients.hidden).index_copy_(0, kept.index.slice(0, begin, end), d.mm(weight));
    } else {
      multiply(gradients.hidden.slice(0, begin, end), d, weight);
    }
  }
  if (gradients.weight.defined()) add_product(gradients.weight, d.t(), chunk_hidden);
}

// Losses of the kept tokens, and what `gradients` has room for.
TokenLosses run_chunks(const Inputs& in, const Kept& kept, const HeadGradients& gradients) {
  const at::TensorOptions options = in.hidden.options().dtype(sum_dtype(in.hidden));
  const TokenLosses losses = empty_losses(kept.count, in.mix, in.targets.defined(), options);
  const at::Tensor weights = in.weights.defined() ? kept.rows(in.weights).to(options) : at::ones({kept.count}, options);
  const at::Tensor targets = kept.rows(in.targets);
  const LossChunks chunks = loss_chunks(kept.count, in.weight.size(0), in.mix.diverges(), gradients.wanted(),
                                        in.hidden.scalar_type(), in.hidden.device());
  const LossMemory memory(chunks, in.weight.size(0), sum_dtype(in.hidden), in.hidden.device());
  for (std::int64_t begin = 0; begin < kept.count; begin += chunks.rows) {
    const std::int64_t end = std::min(kept.count, begin + chunks.rows);
    const at::Tensor hidden = kept.rows(in.hidden, begin, end), slope = memory.slope().slice(0, 0, end - begin);
    std::int64_t at = begin, stop = begin;
    for (auto rows = chunks.parts.begin(); at < end; ++rows, at = stop) {
      stop = std::min(end, at + *rows);
      const auto part = [&](const at::Tensor& of) { return of.defined() ? of.slice(0, at, stop) : of; };
      Chunk chunk{.logits = memory.logits(at - begin, stop - begin, /*of_teacher=*/false),
                  .teacher = in.mix.diverges() ? memory.logits(at - begin, stop - begin, /*of_teacher=*/true) : at::Tensor(),
                  .targets = part(targets),
                  .weights = part(weights),
                  .slope = gradients.wanted() ? slope.slice(0, at - begin, stop - begin) : at::Tensor()};
      const TokenLosses chunk_of_losses{part(losses.cross_entropy), part(losses.forward_kl), part(losses.reverse_kl),
                                        part(losses.jsd), part(losses.log_sums)};
      multiply(chunk.logits, hidden.slice(0, at - begin, stop - begin), in.weight.t());
      if (in.mix.diverges() && in.teacher.top.defined()) {
        const TopProbabilities top{kept.rows(in.teacher.top.ids, at, stop), kept.rows(in.teacher.top.log_probs, at, stop)};
        top_chunk_losses(chunk, top, in.mix, chunk_of_losses);
        continue;
      }
      if (in.mix.diverges()) multiply(chunk.teacher, kept.rows(in.teacher.hidden, at, stop), in.teacher.weight.t());
      chunk_losses(chunk, in.mix, chunk_of_losses);
    }
    if (gradients.wanted()) add_gradients(slope, hidden, in.weight, kept, begin, gradients);
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
  add(losses.jsd, mix.jsd);
  if (mix.z != 0) add(losses.log_sums.square(), mix.z);
  return sum;
}

// Scaled in place and given away, so that the head's gradient is never in memory twice.
Tensors scaled(HeadGradients gradients, const at::Tensor& outer) {
  MOLT_CHECK(gradients.wanted(), "linear_loss: backward ran a second time");
  // A gradient that was added is right for a slope of one alone. To ask whether it is one would wait for a GPU; anything else
  // makes the other gradients infinite, which no step survives unnoticed.
  const at::Tensor scale = gradients.added ? outer / outer.eq(1) : outer;
  if (gradients.hidden.defined()) gradients.hidden.mul_(scale);
  if (gradients.added) return {std::move(gradients.hidden), {}};
  if (gradients.weight.defined()) gradients.weight.mul_(scale);
  return {std::move(gradients.hidden), std::move(gradients.weight)};
}

}  // namespace linear_loss_operation

void check_linear_loss(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& targets,
                       const at::Tensor& loss_weights, const LossMix& mix, const TeacherHead& teacher) {
  const auto tokens = hidden.size(0);
  MOLT_CHECK(
      hidden.dim() == 2 && weight.dim() == 2 && hidden.size(1) == weight.size(1) && hidden.scalar_type() == weight.scalar_type(),
      "linear_loss: hidden ", hidden.sizes(), ", weight ", weight.sizes());
  MOLT_CHECK((mix.cross_entropy == 0 && mix.z == 0) || targets.defined(), "linear_loss: cross-entropy and z-loss need targets");
  MOLT_CHECK(!targets.defined() || (targets.dim() == 1 && targets.size(0) == tokens && targets.scalar_type() == at::kLong),
             "linear_loss: ", tokens, " tokens, targets ", targets.sizes());
  MOLT_CHECK(!loss_weights.defined() || (loss_weights.dim() == 1 && loss_weights.size(0) == tokens), "linear_loss: ", tokens,
             " tokens, loss_weights ", loss_weights.sizes());
  MOLT_CHECK(mix.temperature > 0, "linear_loss: temperature ", mix.temperature);
  MOLT_CHECK(mix.jsd == 0 || (mix.beta > 0 && mix.beta < 1), "linear_loss: beta ", mix.beta);
  if (!mix.diverges()) return;
  if (const TopProbabilities& top = teacher.top; top.defined()) {
    MOLT_CHECK(!teacher.hidden.defined() && top.ids.dim() == 2 && top.log_probs.dim() == 2 && top.ids.size(0) == tokens &&
                   top.log_probs.size(0) == tokens && top.ids.size(1) >= 1 && top.ids.size(1) <= weight.size(0) &&
                   top.log_probs.size(1) == top.ids.size(1) + 1,
               "linear_loss: ", tokens, " tokens, a vocabulary of ", weight.size(0), ", teacher's ids ", top.ids.sizes(),
               " and log_probs ", top.log_probs.sizes());
    return;
  }
  MOLT_CHECK(teacher.hidden.defined() && teacher.weight.defined() && teacher.hidden.size(0) == tokens &&
                 teacher.hidden.size(1) == teacher.weight.size(1) && teacher.weight.size(0) == weight.size(0) &&
                 sum_dtype(teacher.hidden) == sum_dtype(hidden),
             "linear_loss: teacher's hidden ", teacher.hidden.sizes(), " and head ", teacher.weight.sizes(), ", student's head ",
             weight.sizes());
}

LossResult linear_loss(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& targets,
                       const at::Tensor& loss_weights, const LossMix& mix, const TeacherHead& teacher,
                       const LossOptions& options) {
  using namespace linear_loss_operation;
  check_linear_loss(hidden, weight, targets, loss_weights, mix, teacher);
  const Inputs in{hidden, weight, targets, loss_weights, mix, teacher, options};
  const std::int64_t tokens = hidden.size(0);
  const Kept kept = kept_tokens(tokens, targets, loss_weights, options.tokens);
  LossResult result;
  result.tokens = kept.count;
  const auto gradients = std::make_shared<HeadGradients>();
  result.sum = record(
      {hidden, weight},
      [&](Saved& saved) -> Tensors {
        if (saved.recording) *gradients = room_for_gradients(in, kept);
        const TokenLosses losses = run_chunks(in, kept, *gradients);
        result.cross_entropy = kept.spread(losses.cross_entropy, tokens);
        result.forward_kl = kept.spread(losses.forward_kl, tokens);
        result.reverse_kl = kept.spread(losses.reverse_kl, tokens);
        result.jsd = kept.spread(losses.jsd, tokens);
        if (mix.z != 0) result.z_loss = kept.spread(losses.log_sums.square(), tokens);
        return {weighted_sum(losses, kept.rows(loss_weights), mix, hidden.options().dtype(sum_dtype(hidden)))};
      },
      [gradients](const Tensors&, const Tensors& outer, const std::vector<bool>&) -> Tensors {
        return scaled(std::exchange(*gradients, {}), outer[0]);
      })[0];
  return result;
}

LossResult linear_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& targets,
                                const at::Tensor& loss_weights, const LossOptions& options) {
  return linear_loss(hidden, weight, targets, loss_weights, {.cross_entropy = 1}, {}, options);
}

at::Tensor weighted_divergence(const LossResult& result, const LossMix& mix) {
  at::Tensor sum;
  for (const auto& [factor, part] : {std::pair(mix.forward_kl, result.forward_kl), std::pair(mix.reverse_kl, result.reverse_kl),
                                     std::pair(mix.jsd, result.jsd)}) {
    if (factor != 0) sum = sum.defined() ? sum + factor * part : factor * part;
  }
  return sum;
}

at::Tensor log_probs(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& targets) {
  c10::AutoGradMode no_recording(false);
  return linear_cross_entropy(hidden, weight, targets).cross_entropy.neg();
}

}  // namespace molt::ops
