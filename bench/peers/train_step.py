"""A training step of transformers with PyTorch's fused AdamW beside ours, in turns on the same machine: the 124.7 M-parameter Mistral (hidden 768,
12 layers, 12 query and 4 key heads of 64, MLP 2048, vocabulary 32000, separate head), 2 x 1024 tokens, fp32; and ours with half its layers Mamba.

    python bench/peers/train_step.py build/release/molt_train_bench [--rounds 3] [--threads 2]

A step is forward, backward and update; each program takes one that is not timed first. Prints medians and the ratios of each round's neighbours,
of wall-clock time and of the CPU time of all threads, which other work on the machine disturbs less.
"""

import argparse
import json
import os
import statistics
import subprocess
import time

SEQUENCES, TOKENS = 2, 1024


class Transformers:
    def __init__(self, threads):
        import torch
        import transformers

        torch.set_num_threads(threads)
        config = transformers.MistralConfig(hidden_size=768, num_hidden_layers=12, num_attention_heads=12, num_key_value_heads=4, head_dim=64,
                                            intermediate_size=2048, vocab_size=32000, tie_word_embeddings=False, sliding_window=None)
        self.model = transformers.MistralForCausalLM(config).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)
        self.tokens = torch.randint(3, 32000, (SEQUENCES, TOKENS))
        self.step()

    def step(self):
        start, cpu = time.perf_counter(), time.process_time()
        self.model(self.tokens, labels=self.tokens, use_cache=False).loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return time.perf_counter() - start, time.process_time() - cpu


def our_steps(program, threads):
    command = [program, "--benchmark_filter=BM_Mistral", "--benchmark_format=json"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    output = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    rows = json.loads(output)["benchmarks"]
    by_kind = {hybrid: next(row for row in rows if f"hybrid:{hybrid}" in row["name"]) for hybrid in (0, 1)}
    return [(row["real_time"] / 1000, row["cpu_time"] / 1000) for row in by_kind.values()]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", help="molt_train_bench")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    peer = Transformers(arguments.threads)
    seconds = {"transformers": [], "attention": [], "half Mamba": []}
    for _ in range(arguments.rounds):
        seconds["transformers"].append(peer.step())
        attention, hybrid = our_steps(arguments.program, arguments.threads)
        seconds["attention"].append(attention)
        seconds["half Mamba"].append(hybrid)
    print(f"{'step':<14}{'median s':>10}{'tokens/s':>10}{'least':>8}{'most':>8}{'CPU s':>8}")
    for name, found in seconds.items():
        wall, cpu = [row[0] for row in found], statistics.median(row[1] for row in found)
        median = statistics.median(wall)
        print(f"{name:<14}{median:>10.2f}{SEQUENCES * TOKENS / median:>10.0f}{min(wall):>8.2f}{max(wall):>8.2f}{cpu:>8.2f}")
    for above, below in (("attention", "transformers"), ("half Mamba", "attention")):
        ratios = [statistics.median(a[i] / b[i] for a, b in zip(seconds[above], seconds[below])) for i in (0, 1)]
        print(f"{above} / {below}: {ratios[0]:.2f} by the clock, {ratios[1]:.2f} in CPU time")


if __name__ == "__main__":
    main()
