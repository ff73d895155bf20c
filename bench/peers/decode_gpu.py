"""transformers generating on a GPU with the 15B teacher's shape and random weights, in bf16: steps of decoding with its dynamic cache, as its
`generate` makes them, and its continuous batching. Peers of molt bench bench/models/15b-teacher.json --random --device cuda.

    python bench/peers/decode_gpu.py bench/models/15b-teacher.json [--batch 1 32] [--context 1024 8192] [--tokens 16] [--requests 128]

Caches are filled with random numbers up to the context. Greedy; the rate is of all sequences together. --requests asks for that many answers of 256
tokens to prompts of one, the engine's start included; 0: none.
"""

import argparse
import json
import time

import torch
from transformers import DynamicCache, GenerationConfig, MistralConfig, MistralForCausalLM


def random_model(path):
    with open(path) as file:
        config = MistralConfig(**json.load(file))
    config._attn_implementation = "sdpa"
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        return MistralForCausalLM(config).eval()


def filled_cache(config, batch, context):
    cache = DynamicCache(config=config)
    for layer in range(config.num_hidden_layers):
        make = lambda: torch.randn(batch, config.num_key_value_heads, context, config.head_dim, device="cuda", dtype=torch.bfloat16)
        cache.update(make(), make(), layer)
    return cache


@torch.inference_mode()
def decode_rate(model, batch, context, tokens):
    cache = filled_cache(model.config, batch, context)
    ids = torch.randint(model.config.vocab_size, (batch, 1), device="cuda")
    for step in range(tokens + 3):
        if step == 3:
            torch.cuda.synchronize()
            begin = time.perf_counter()
        ids = model(input_ids=ids, past_key_values=cache, use_cache=True).logits[:, -1].argmax(-1, keepdim=True)
    torch.cuda.synchronize()
    return batch * tokens / (time.perf_counter() - begin)


def request_rate(model, requests, tokens=256):
    prompts = torch.randint(model.config.vocab_size, (requests, 1)).tolist()
    settings = GenerationConfig(max_new_tokens=tokens, do_sample=False, eos_token_id=-1, pad_token_id=0)
    begin = time.perf_counter()
    answers = model.generate_batch(prompts, generation_config=settings)
    seconds = time.perf_counter() - begin
    assert sum(len(answer.generated_tokens) for answer in answers.values()) == requests * tokens
    return requests * tokens / seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--context", type=int, nargs="+", default=[1024, 8192])
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--requests", type=int, default=128)
    arguments = parser.parse_args()
    print(torch.cuda.get_device_name(), "PyTorch", torch.__version__)
    model = random_model(arguments.config)
    for context in arguments.context:
        for batch in arguments.batch:
            torch.cuda.empty_cache()
            try:
                print(f"batch {batch}, context {context}: {decode_rate(model, batch, context, arguments.tokens):.0f} tokens/s", flush=True)
            except torch.OutOfMemoryError:
                print(f"batch {batch}, context {context}: does not fit", flush=True)
    if arguments.requests:
        torch.cuda.empty_cache()
        print(f"{arguments.requests} requests: {request_rate(model, arguments.requests):.0f} tokens/s", flush=True)


if __name__ == "__main__":
    main()
