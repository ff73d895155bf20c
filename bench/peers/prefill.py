"""transformers reading a prompt with a hybrid of random weights, by the modelling files that exports carry: the peer of the prefill rows of
molt bench CONFIG.json --random --context 1024,8192.

    python bench/peers/prefill.py CONFIG.json [--context 1024 8192] [--runs 3] [--device cuda]

In bf16 on a GPU and fp32 on a CPU, as molt does; the cache is filled, and logits are those of the last token.
"""

import argparse
import json
import pathlib
import statistics
import sys
import time

import torch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "python"))
from molt_hybrid.configuration_apriel_hybrid_ssm import AprielHybridSSMConfig  # noqa: E402
from molt_hybrid.modeling_apriel_hybrid_ssm import AprielHybridSSMForCausalLM  # noqa: E402


def random_model(path, device):
    torch.set_default_dtype(torch.float32 if device == "cpu" else torch.bfloat16)
    with torch.device(device):
        return AprielHybridSSMForCausalLM(AprielHybridSSMConfig(**json.loads(pathlib.Path(path).read_text()))).eval()


@torch.inference_mode()
def seconds(model, context):
    tokens = torch.randint(model.config.vocab_size, (1, context), device=model.device)
    begin = time.perf_counter()
    model(tokens, logits_to_keep=1).logits.cpu()
    return time.perf_counter() - begin


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("--context", type=int, nargs="+", default=[1024, 8192])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    model = random_model(arguments.config, arguments.device)
    for context in arguments.context:
        seconds(model, context)
        taken = statistics.median(seconds(model, context) for _ in range(arguments.runs))
        print(f"prefill {context}: {1000 * taken:.1f} ms, {context / taken:.0f} tokens/s", flush=True)


if __name__ == "__main__":
    main()
