"""mamba_ssm's selective scan and causal-conv1d on the GPU, as Fast-LLM's Mamba layer calls them between its projections: z, x, B and C transposed,
x and B repeated for each head, in bf16; and their one-token updates. Peers of molt_ops_bench --benchmark_filter='^(scan|mixer_core)/|mamba_update',
timed as it times them: each pass in a CUDA graph, medians of 15.

    pip install mamba-ssm==2.3.2 causal-conv1d==1.6.1   (both compile CUDA code)
    python bench/peers/mamba.py

Widths are those of the 15B teacher (d_inner 4096, d_xb 1024, state 16) unless a row says d_inner.
"""

import torch
from causal_conv1d import causal_conv1d_fn, causal_conv1d_update
from graph_timing import both_passes, milliseconds
from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
from mamba_ssm.ops.triton.selective_state_update import selective_state_update

STATE, REPEAT = 16, 4
SHAPES = ((1, 16384, 4096), (4, 4096, 4096), (1, 2048, 512), (1, 2048, 1024), (1, 131072, 512), (1, 131072, 1024))


def values(*shape, dtype=torch.bfloat16):
    return torch.randn(*shape, device="cuda", dtype=dtype)


def leaf(*shape):
    return values(*shape).requires_grad_()


def small_inputs(d_inner):
    A_log = torch.arange(1, STATE + 1, device="cuda").float().log().repeat(d_inner, 1)
    return A_log.requires_grad_(), values(d_inner, dtype=torch.float).requires_grad_(), (values(d_inner, dtype=torch.float) - 4).requires_grad_()


def scan(sequences, length, d_inner):
    A_log, D, bias = small_inputs(d_inner)
    x, dt, z = (leaf(sequences, d_inner, length) for _ in range(3))
    B, C = (leaf(sequences, d_inner // STATE, STATE, length) for _ in range(2))
    inputs = (x, dt, A_log, B, C, D, z, bias)
    return inputs, lambda: (selective_scan_fn(x, dt, -torch.exp(A_log), B, C, D, z, delta_bias=bias, delta_softplus=True),)


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
        y = selective_scan_fn(x, dt.transpose(1, 2), -torch.exp(A_log), repeated(B), C, D, z.transpose(1, 2), delta_bias=bias, delta_softplus=True)
        return (y.transpose(1, 2),)

    return (projection, dt, weight, conv_bias, A_log, D, bias), forward


def update(sequences, turns, d_inner=4096, rank=16):
    """One token of each sequence; `turns` sets of states, so that none is found in the L2 cache."""
    d_xb, heads = d_inner // REPEAT, d_inner // STATE
    A_log, D, bias = (tensor.detach().unflatten(0, (heads, STATE)) for tensor in small_inputs(d_inner))
    A, projection = -torch.exp(A_log), values(sequences, 2 * d_inner + 2 * d_xb)
    low, dt_weight, weight, conv_bias = values(sequences, rank), values(d_inner, rank), values(d_inner, 4), values(d_inner)
    windows = torch.zeros(turns, sequences, d_inner, 4, device="cuda", dtype=torch.bfloat16)
    states = torch.zeros(turns, sequences, heads, STATE, STATE, device="cuda")
    of_heads = lambda tensor: tensor.unflatten(1, (-1, STATE))
    turn = 0

    def body():
        nonlocal turn
        z, x, B, C = torch.split(projection, (d_inner, d_xb, d_xb, d_inner), dim=1)
        x, B = (of_heads(columns).repeat_interleave(REPEAT, 1, output_size=heads) for columns in (x, B))
        x = causal_conv1d_update(x.flatten(1), windows[turn], weight, conv_bias, activation="silu")
        dt = of_heads(low @ dt_weight.t())
        selective_state_update(states[turn], of_heads(x), dt, A, B, of_heads(C), D, of_heads(z), dt_bias=bias, dt_softplus=True)
        turn = (turn + 1) % turns

    return body


def main():
    print(torch.cuda.get_device_name(), "PyTorch", torch.__version__)
    for name, operation in (("core", core), ("scan", scan), ("convolution", convolution)):
        for shape in SHAPES:
            calls = 20 if shape[1] == 2048 else 2
            forward, both = both_passes(lambda: operation(*shape), calls)
            print(f"{name}, {shape[0]} x {shape[1]}, d_inner {shape[2]}: forward {forward:.4f} ms, with backward {both:.4f} ms", flush=True)
    for sequences in (1, 32, 256):
        turns = max(2, 190 // sequences)
        time = milliseconds(lambda: update(sequences, turns), turns)
        print(f"update of {sequences}: {1e3 * time:.1f} us", flush=True)


if __name__ == "__main__":
    main()
