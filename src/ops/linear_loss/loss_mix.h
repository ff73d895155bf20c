// What a token's loss is made of.
#pragma once

namespace molt::ops {

// cross_entropy * CE + forward_kl * KL(teacher || student) + reverse_kl * KL(student || teacher). Both divergences are of the
// distributions softmax(logits / temperature), without a further factor of temperature^2; CE is at temperature 1.
struct LossMix {
  double cross_entropy = 0;
  double forward_kl = 0;
  double reverse_kl = 0;
  double temperature = 1;

  bool diverges() const { return forward_kl != 0 || reverse_kl != 0; }
};

}  // namespace molt::ops
