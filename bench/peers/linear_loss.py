"""Head and loss as Liger has them, forward and backward on the GPU: peer of molt_ops_bench --benchmark_filter=gpu_loss. Shapes and operands are that
benchmark's: 8,192 tokens, hidden 5120, vocabulary 131072, bf16, hidden states with a deviation of 1, heads with one of 0.05.

    python bench/peers/linear_loss.py          with liger_kernel installed beside PyTorch

Gradients of hidden states and of the (student's) head, which is new in each pass and added up over Liger's chunks in bf16, or in fp32 as molt adds it.
FLOP/s count three products a token for cross-entropy and four for reverse KL, which is Liger's JSD with a beta of 1. Medians of the passes of some seconds,
each waited for, after a second that brings the card to the clock that it keeps.
"""

import statistics
import time

import torch
from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss, LigerFusedLinearJSD

TOKENS, HIDDEN, VOCABULARY = 8192, 5120, 131072


def milliseconds(body, warm_up=1.0, seconds=2.0):
    body()
    torch.cuda.synchronize()
    times, start = [], time.monotonic()
    while (now := time.monotonic() - start) < warm_up + seconds:
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        body()
        end.record()
        end.synchronize()
        if now >= warm_up:
            times.append(begin.elapsed_time(end))
    return statistics.median(times)


def main():
    draw = lambda *sizes: torch.randn(*sizes, device="cuda", dtype=torch.bfloat16)
    hidden, weight = draw(TOKENS, HIDDEN).requires_grad_(), draw(VOCABULARY, HIDDEN).mul_(0.05).requires_grad_()
    teacher_hidden, teacher_weight = draw(TOKENS, HIDDEN), draw(VOCABULARY, HIDDEN).mul_(0.05)
    targets = torch.randint(VOCABULARY, (TOKENS,), device="cuda")
    print(torch.cuda.get_device_name(), "PyTorch", torch.__version__)
    for sums in (None, torch.float32):
        cross_entropy, divergence = LigerFusedLinearCrossEntropyLoss(accum_dtype=sums), LigerFusedLinearJSD(jsd_beta=1.0, accum_dtype=sums)
        for name, products, loss in (
            ("cross-entropy", 6, lambda: cross_entropy(weight, hidden, targets)),
            ("reverse KL", 8, lambda: divergence(hidden, weight, teacher_hidden, teacher_weight, targets)),
        ):

            def both():
                hidden.grad = weight.grad = None
                loss().backward()

            both()
            torch.cuda.synchronize()
            kept = hidden.nbytes + weight.nbytes  # the gradients
            hidden.grad = weight.grad = None
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            both()
            beyond = torch.cuda.max_memory_allocated() - before - kept
            time_taken = milliseconds(both)
            rate = products * TOKENS * HIDDEN * VOCABULARY / time_taken / 1e9
            print(f"{name}, head's gradient in {'bf16' if sums is None else 'fp32'}: {time_taken:.1f} ms, {rate:.0f} TFLOP/s, "
                  f"{beyond / 1e9:.2f} GB beyond weights and gradients", flush=True)


if __name__ == "__main__":
    main()
