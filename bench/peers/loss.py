"""Liger's fused head and loss on the GPU, beside PyTorch's own calls on whole logits: 8192 tokens, hidden 5120, vocabulary 131072, bf16, forward and
backward with gradients of hidden states and of the head. Peers of molt_ops_bench --benchmark_filter=gpu_loss.

    pip install liger-kernel==0.8.5
    python bench/peers/loss.py

Reverse KL is from a teacher's hidden states and head. Liger adds the head's gradient up over its chunks in bf16, or in fp32 as molt does. Medians of
40, so that the card is at the clock that it keeps under load; memory is what a pass takes at its peak beyond weights, hidden states and
gradients. FLOP/s count three products of the head a token for cross-entropy and four for reverse KL.
"""

import statistics

import torch
import torch.nn.functional as F
from liger_kernel.transformers.fused_linear_cross_entropy import LigerFusedLinearCrossEntropyLoss
from liger_kernel.transformers.fused_linear_jsd import LigerFusedLinearJSD

TOKENS, HIDDEN, VOCABULARY = 8192, 5120, 131072


def measure(name, products, forward, hidden, weight, runs=40):
    times, peak = [], 0
    for i in range(runs + 3):
        hidden.grad = weight.grad = None
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        forward().backward()
        end.record()
        end.synchronize()
        if i >= 3:
            times.append(begin.elapsed_time(end))
            peak = max(peak, torch.cuda.max_memory_allocated() - before - sum(t.grad.nbytes for t in (hidden, weight)))
    time = statistics.median(times)
    rate = products * 2 * TOKENS * HIDDEN * VOCABULARY / time / 1e9
    print(f"{name}: {time:.1f} ms, {rate:.0f} TFLOP/s, {peak / 1e9:.2f} GB beyond weights and gradients", flush=True)


def main():
    print(torch.cuda.get_device_name(), "PyTorch", torch.__version__)
    make = lambda rows, scale: (torch.randn(rows, HIDDEN, device="cuda") * scale).to(torch.bfloat16)
    hidden, weight = make(TOKENS, 1).requires_grad_(), make(VOCABULARY, 0.05).requires_grad_()
    teacher_hidden, teacher_weight = make(TOKENS, 1), make(VOCABULARY, 0.05)
    targets = torch.randint(VOCABULARY, (TOKENS,), device="cuda")

    def eager_reverse_kl():
        student = F.log_softmax((hidden @ weight.t()).float(), -1)
        with torch.no_grad():
            teacher = F.log_softmax((teacher_hidden @ teacher_weight.t()).float(), -1)
        return F.kl_div(teacher, student, reduction="batchmean", log_target=True)

    for sums in (None, torch.float32):
        cross_entropy, jsd = LigerFusedLinearCrossEntropyLoss(accum_dtype=sums), LigerFusedLinearJSD(jsd_beta=1.0, accum_dtype=sums)
        kind = "" if sums is None else ", head's gradient in fp32"
        measure(f"Liger, cross-entropy{kind}", 3, lambda: cross_entropy(weight, hidden, targets), hidden, weight)
        measure(f"Liger, reverse KL{kind}", 4, lambda: jsd(hidden, weight, teacher_hidden, teacher_weight, None), hidden, weight)
    measure("PyTorch, cross-entropy", 3, lambda: F.cross_entropy((hidden @ weight.t()).float(), targets), hidden, weight)
    measure("PyTorch, reverse KL", 4, eager_reverse_kl, hidden, weight)


if __name__ == "__main__":
    main()
