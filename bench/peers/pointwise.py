"""Liger's RMSNorm, its sum of residual and RMSNorm, and its SwiGLU on the GPU: 16384 tokens of the 15B teacher in bf16 (hidden 5120, MLP 14336).
Peers of molt_ops_bench --benchmark_filter='(norm|swiglu).*/cuda', each pass in a CUDA graph, medians of 15.

    pip install liger-kernel==0.8.5
    python bench/peers/pointwise.py
"""

import torch
from graph_timing import both_passes
from liger_kernel.transformers.functional import liger_fused_add_rms_norm, liger_rms_norm, liger_swiglu

TOKENS, HIDDEN, INTERMEDIATE = 16384, 5120, 14336


def leaf(*shape):
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16).requires_grad_()


def rms_norm():
    x, weight = leaf(TOKENS, HIDDEN), leaf(HIDDEN)
    return (x, weight), lambda: (liger_rms_norm(x, weight, 1e-5),)


def add_rms_norm():
    x, residual, weight = leaf(TOKENS, HIDDEN), leaf(TOKENS, HIDDEN), leaf(HIDDEN)
    return (x, residual, weight), lambda: liger_fused_add_rms_norm(x, residual, weight, 1e-5)


def swiglu():
    gate, up = leaf(TOKENS, INTERMEDIATE), leaf(TOKENS, INTERMEDIATE)
    return (gate, up), lambda: (liger_swiglu(gate, up),)


def main():
    print(torch.cuda.get_device_name(), "PyTorch", torch.__version__)
    for make in (rms_norm, add_rms_norm, swiglu):
        forward, both = both_passes(make, 4)
        print(f"{make.__name__}: forward {forward:.3f} ms, with backward {both:.3f} ms", flush=True)


if __name__ == "__main__":
    main()
