// What a token's loss is made of.
#pragma once

namespace molt::ops {

// cross_entropy * CE + forward_kl * KL(teacher || student) + reverse_kl * KL(student || teacher) + jsd * JSD + z * log(sum of
// exp(logits))^2, where JSD = beta KL(teacher || m) + (1 - beta) KL(student || m) with m = beta teacher + (1 - beta) student, the
// generalised Jensen-Shannon divergence (arXiv 2306.13649, section 2): divided by beta it tends to the forward KL for small beta,
// divided by 1 - beta to the reverse one for beta close to 1.
// Divergences are of the distributions softmax(logits / temperature), without a further factor of temperature^2; the other two
// terms are at temperature 1. The last, the z-loss (Chowdhery et al., arXiv 2204.02311, section 5), keeps logits from drifting.
struct LossMix {
  double cross_entropy = 0;
  double forward_kl = 0;
  double reverse_kl = 0;
  double jsd = 0, beta = 0.5;  // beta between 0 and 1, neither included
  double z = 0;
  double temperature = 1;

  bool diverges() const { return forward_kl != 0 || reverse_kl != 0 || jsd != 0; }
};

}  // namespace molt::ops
