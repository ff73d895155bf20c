// How long a recipe will take on this machine, from a short trial of each stage.
#pragma once
#include <string>
#include <vector>

#include "distill/plan.h"
#include "distill/recipe.h"

namespace molt {

// Fills in the seconds of every stage that fits into the machine's memory: a few micro-batches forward and backward and steps of
// the optimizer, in the stage's own shapes, dtype and trainable parameters, on this machine's device and threads. Weights are
// random, so neither the teacher nor anything trained is needed; batches are the stage's data where that can be opened, otherwise
// random tokens in sequences of the length that the plan assumes (a warning says so). Rankings follow from their FLOPs at the
// rate that training reached. Evaluations are not counted. Throws Interrupted between micro-batches.
void measure_recipe(const RecipeConfig& recipe, const ModelConfig& teacher, const Machine& machine, const std::string& place,
                    RecipePlan& plan);

}  // namespace molt
