"""One layer of the 15B teacher's shape as transformers has it, forward and backward on the GPU (hidden 5120, 32 query and 8 key heads of 128, MLP
14336, bf16, cuDNN's attention), and the attention inside it alone, as PyTorch calls it: peers of molt_model_bench --benchmark_filter=layer_gpu and
molt_ops_bench --benchmark_filter=attention_gpu.

    python bench/peers/layer.py [--no-compile] [--no-attention]

FLOP/s count 6 a weight and token, and of scores and sums the half that is not masked. Gradients of weights are either new in each pass, in bf16, or
added to those of the last, in bf16 as well; molt adds them in fp32. A card at its power limit is as fast as its operands' bits let it be, so they are
drawn as molt's benchmark draws them: weights with a deviation of 0.02, hidden states and their gradient with one of 1. Medians of the calls of some
seconds, each waited for, after a second that brings the card to the clock that it keeps.
"""

import argparse
import statistics
import time

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

SHAPES = ((1, 16384), (4, 4096))


def milliseconds(body, warm_up=1.0, seconds=2.0):
    body()  # compiles
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


def attention(sequences, length, backend):
    make = lambda heads: torch.randn(sequences, length, heads, 128, device="cuda", dtype=torch.bfloat16).transpose(1, 2).requires_grad_()
    q, k, v = make(32), make(8), make(8)
    gradient = torch.randn_like(q)
    forward = lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)

    def both():
        q.grad = k.grad = v.grad = None
        forward().backward(gradient)

    with sdpa_kernel(backend):
        with torch.no_grad():
            alone = milliseconds(forward)
        return alone, milliseconds(both)


def layer(sequences, length, compiled, accumulated):
    from transformers.models.mistral.modeling_mistral import MistralConfig, MistralDecoderLayer, MistralRotaryEmbedding

    config = MistralConfig(hidden_size=5120, num_attention_heads=32, num_key_value_heads=8, head_dim=128, intermediate_size=14336, sliding_window=None)
    config._attn_implementation = "sdpa"
    module = MistralDecoderLayer(config, 0).to("cuda", torch.bfloat16).train()
    for parameter in module.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.02)
    hidden = torch.randn(sequences, length, 5120, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    positions = torch.arange(length, device="cuda").expand(sequences, length)
    rotary = MistralRotaryEmbedding(config).to("cuda")(hidden.detach(), positions)
    call = torch.compile(module, dynamic=False) if compiled else module  # else the second shape would be compiled for any
    gradient = torch.randn_like(hidden)

    def both():
        hidden.grad = None
        if not accumulated:
            module.zero_grad(set_to_none=True)
        out = call(hidden, position_embeddings=rotary, position_ids=positions)
        (out[0] if isinstance(out, tuple) else out).backward(gradient)

    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        time = milliseconds(both)
    weights = sum(parameter.numel() for parameter in module.parameters())
    tokens = sequences * length
    return time, (6 * weights * tokens + 3 * 2 * length * 4096 * tokens) / time / 1e9


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--no-attention", action="store_true", help="the layer alone")
    arguments = parser.parse_args()
    compiled = not arguments.no_compile
    print(torch.cuda.get_device_name(), "PyTorch", torch.__version__)
    for sequences, length in () if arguments.no_attention else SHAPES:
        for name, backend in (("cuDNN", SDPBackend.CUDNN_ATTENTION), ("flash", SDPBackend.FLASH_ATTENTION)):
            forward, both = attention(sequences, length, backend)
            print(f"{sequences} x {length} attention, {name}: forward {forward:.2f} ms, with backward {both:.2f} ms", flush=True)
    for sequences, length in SHAPES:
        for accumulated in (False, True):
            time, rate = layer(sequences, length, compiled, accumulated)
            print(f"{sequences} x {length} layer{', compiled' if compiled else ''}, gradients {'added' if accumulated else 'new'}: "
                  f"{time:.1f} ms, {rate:.0f} TFLOP/s", flush=True)


if __name__ == "__main__":
    main()
