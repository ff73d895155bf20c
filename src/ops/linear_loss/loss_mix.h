// What a token's loss is made of.
#pragma once

namespace molt::ops {

// cross_entropy * CE + forward_kl * KL(teacher || student) + reverse_kl * KL(student || teacher) + z * log(sum of exp(logits))^2.
// Both divergences are of the distributions softmax(logits / temperature), without a further factor of temperature^2; the other
// two are at temperature 1. The last term, the z-loss (Chowdhery et al., arXiv 2204.02311, section 5), keeps logits from
// drifting.
struct LossMix {
  double cross_entropy = 0;
  double forward_kl = 0;
  double reverse_kl = 0;
  double z = 0;
  double temperature = 1;

  bool diverges() const { return forward_kl != 0 || reverse_kl != 0; }
};

}  // namespace molt::ops
