"""mamba_ssm's selective scan and causal-conv1d on the GPU, as Fast-LLM's Mamba layer calls them between its projections: z, x, B and C transposed,
x and B repeated for each head, in bf16. Peers of molt_ops_bench --benchmark_filter='^(scan|mixer_core)/', timed as it times them: each pass in a
CUDA graph, medians of 15.

    pip install mamba-ssm==2.3.2 causal-conv1d==1.6.1   (both compile CUDA code)
    python bench/peers/mamba.py

Widths are those of the 15B teacher (d_inner 4096, d_xb 1024, state 16) unless a row says d_inner.
"""

import torch
from causal_conv1d import causal_conv1d_fn
from graph_timing import both_passes
from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

STATE, REPEAT = 16, 4
SHAPES = ((1, 16384, 4096), (4, 4096, 4096), (1, 2048, 512), (1, 2048, 1024), (1, 131072, 512), (1, 131072, 1024))


def leaf(*shape, dtype=torch.bfloat16):
    return torch.randn(*shape, device="cuda", dtype=dtype).requires_grad_()


def small_inputs(d_inner):
    A_log = torch.arange(1, STATE + 1, device="cuda").float().log().repeat(d_inner, 1).requires_grad_()
    return A_log, leaf(d_inner, dtype=torch.float), leaf(d_inner, dtype=torch.float)


def scan(sequences, length, d_inner):
    A_log, D, bias = small_inputs(d_inner)
    x, dt, z = (leaf(sequences, d_inner, length) for _ in range(3))
    B, C = (leaf(sequences, d_inner // STATE, STATE, length) for _ in range(2))
    inputs = (x, dt, A_log, B, C, D, z, bias)
    return inputs, lambda: (selective_scan_fn(x, dt, -torch.exp(A_log), B, C, D, z, delta_bias=bias - 4, delta_softplus=True),)


def convolution(sequences, length, d_inner):
    x, weight, bias = leaf(sequences, d_inner, length), leaf(d_inner, 4), leaf(d_inner)
    return (x, weight, bias), lambda: (causal_conv1d_fn(x, weight, bias, activation="silu"),)


def core(sequences, length, d_inner):
    d_xb, heads = d_inner // REPEAT, d_inner // STATE
    A_log, D, bias = small_inputs(d_inner)
    projection, dt = leaf(sequences, length, 2 * d_inner + 2 * d_xb), leaf(sequences, length, d_inner)
    weight, conv_bias = leaf(d_inner, 4), leaf(d_inner)

    def repeated(columns):
        groups = columns.transpose(1, 2).unflatten(1, (heads // REPEAT, STATE))
        return groups.repeat_interleave(REPEAT, 1, output_size=heads)

    def forward():
        z, x, B, C = torch.split(projection, (d_inner, d_xb, d_xb, d_inner), dim=2)
        x = causal_conv1d_fn(repeated(x).flatten(1, 2), weight, conv_bias, activation="silu")
        C = C.transpose(1, 2).unflatten(1, (heads, STATE))
        y = selective_scan_fn(x, dt.transpose(1, 2), -torch.exp(A_log), repeated(B), C, D, z.transpose(1, 2), delta_bias=bias - 4, delta_softplus=True)
        return (y.transpose(1, 2),)

    return (projection, dt, weight, conv_bias, A_log, D, bias), forward


def main():
    print(torch.cuda.get_device_name(), "PyTorch", torch.__version__)
    for name, operation in (("core", core), ("scan", scan), ("convolution", convolution)):
        for shape in SHAPES:
            calls = 20 if shape[1] == 2048 else 2
            forward, both = both_passes(lambda: operation(*shape), calls)
            print(f"{name}, {shape[0]} x {shape[1]}, d_inner {shape[2]}: forward {forward:.4f} ms, with backward {both:.4f} ms", flush=True)


if __name__ == "__main__":
    main()
