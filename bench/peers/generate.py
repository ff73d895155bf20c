"""transformers' `generate` beside `molt bench`, in turns on the same machine: greedy, fp32, 256 new tokens after a prompt of 5 for one
sequence, and after 32 different prompts of 5 to 16 tokens (left-padded to 16 for transformers; molt begins at 16 with each).

    python bench/peers/generate.py build/release/molt shared/data/stories260k [--rounds 5] [--threads 2]
        [--llama-cpp llama-batched-bench model.gguf]

Stop tokens are ignored, so that every run makes the full count. transformers' time includes the prompt's, one step in 257.
llama.cpp's tool decodes given tokens over the same contexts and chooses none.
"""

import argparse
import json
import os
import statistics
import subprocess
import time

PROMPT, LONGEST, NEW = 5, 16, 256


def rate_of_molt(binary, model, batch, threads):
    command = [binary, "bench", model, "--batch", str(batch), "--context", str(PROMPT if batch == 1 else LONGEST), "--tokens", str(NEW), "--runs", "9",
               "--threads", str(threads), "--quiet", "--json"]
    rows = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return next(row["tokens_per_second"] for row in rows if row["work"] == "decode")


def rate_of_llama_cpp(binary, model, batch, threads):
    longest = PROMPT if batch == 1 else LONGEST
    command = [binary, "-m", model, "-c", str(batch * (longest + NEW)), "-npp", str(longest), "-ntg", str(NEW), "-npl", str(batch),
               "-t", str(threads), "-tb", str(threads), "--output-format", "jsonl"]
    for _ in range(10):  # now and then the program ends before its result is printed
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        for line in (run.stdout + run.stderr).splitlines():
            if line.startswith("{"):
                return json.loads(line)["speed_tg"]
    raise RuntimeError(f"{binary} printed no result")


class Transformers:
    def __init__(self, folder, threads):
        import torch
        import transformers

        torch.set_num_threads(threads)
        self.torch = torch
        self.model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def rate(self, batch):
        longest = PROMPT if batch == 1 else LONGEST
        lengths = self.torch.linspace(PROMPT, longest, batch).round().long()
        mask = (self.torch.arange(longest) >= longest - lengths.unsqueeze(1)).long()
        prompts = self.torch.randint(3, self.model.config.vocab_size, (batch, longest)) * mask
        start = time.perf_counter()
        with self.torch.inference_mode():
            out = self.model.generate(prompts, attention_mask=mask, max_new_tokens=NEW, do_sample=False, eos_token_id=None, pad_token_id=0)
        assert out.shape == (batch, longest + NEW)
        return batch * NEW / (time.perf_counter() - start)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("molt")
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--llama-cpp", nargs=2, metavar=("BINARY", "GGUF"))
    arguments = parser.parse_args()
    peer = Transformers(arguments.model, arguments.threads)
    print(f"{'batch':>5}  {'who':<14}{'tokens/s':>10}{'lowest':>10}{'highest':>10}   molt's ratio")
    for batch in (1, 32):
        rates = {"molt": [], "transformers": []}
        peer.rate(batch)
        for _ in range(arguments.rounds):
            rates["transformers"].append(peer.rate(batch))
            rates["molt"].append(rate_of_molt(arguments.molt, arguments.model, batch, arguments.threads))
            if arguments.llama_cpp:
                rates.setdefault("llama.cpp", []).append(rate_of_llama_cpp(*arguments.llama_cpp, batch, arguments.threads))
        for who, found in rates.items():
            ratio = statistics.median(ours / theirs for ours, theirs in zip(rates["molt"], found))
            print(f"{batch:>5}  {who:<14}{statistics.median(found):>10.0f}{min(found):>10.0f}{max(found):>10.0f}   {ratio:.2f}", flush=True)


if __name__ == "__main__":
    main()
