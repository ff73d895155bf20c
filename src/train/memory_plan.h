// How much memory training takes, from the shapes of a model alone: no weights are read.
#pragma once
#include <cstdint>
#include <string>

#include "base/json.h"
#include "model/model.h"
#include "train/loop.h"

namespace molt {

// Bytes while a model trains.
struct MemoryPlan {
  double teacher = 0;    // weights
  double student = 0;    // weights that it does not share with the teacher
  double gradients = 0;  // fp32
  double optimizer = 0;  // moments, fp32 masters where weights have fewer bits, averages
  double saving = 0;     // the copy that a checkpoint is written from; on a GPU it lies in the host's memory and is none of this
  double activations = 0;  // at the peak: what backward needs, and what passes through the widest place beside it
  double sampling = 0;     // caches of the engine that writes on-policy texts, which is kept from batch to batch
  double total() const { return teacher + student + gradients + optimizer + saving + activations + sampling; }
};

// Its parts and "total", for events.jsonl.
OrderedJson to_json(const MemoryPlan& plan);
// "1.20 GiB: weights 312 MiB, gradients …", for people; what is nothing is left out.
std::string memory_text(const MemoryPlan& plan);

// What a micro-batch's activations depend on beside the models.
struct ActivationShape {
  std::int64_t tokens = 0;
  Recompute recompute = Recompute::none;
  at::ScalarType dtype = at::kFloat;
  at::Device device = at::kCPU;
  double loss_share = 1;        // of the tokens that carry loss: the head sees no others
  bool stored_teacher = false;  // known by its largest probabilities: the loss needs room as if it had logits
};

// At the peak of forward and backward; `teacher` may be null. Kept for a block's backward pass: what goes into each product and
// what comes out of it, which is what the operations between them need, and a mixer's own states (Mixer::kept_states, as if the
// tokens were one sequence). Beside it there is at most one of: the head's chunk of
// logits; in backward, the gradient of the widest product; the teacher's forward pass, before anything of the student's is kept.
// On a GPU there are the workspaces of cuBLAS and cuBLASLt, too: 32 MiB each on Hopper, in LibTorch.
double activation_bytes(Model& student, Model* teacher, const ActivationShape& shape);

// Gradients, optimizer and saving for `trained` parameters.
void plan_training(MemoryPlan& plan, double trained, const LoopConfig& loop, at::ScalarType dtype, at::Device device);

}  // namespace molt
