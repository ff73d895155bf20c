"""molt's tokenizer beside Hugging Face `tokenizers`, on one thread, in turns in one run.

    python bench/peers/tokenizer.py [--bench build/release/molt_text_bench] [--text FILE] [--repeats 5]

Tokenizers of 32,000 tokens are trained on the text in the shapes of GPT-2, Llama 3 and Llama 2; each line is encoded by itself, as
a training corpus is. The peer is measured by encode_batch_fast, its quickest call (no offsets). Medians.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers  # noqa: E402

LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def train(pre_tokenizer, decoder, lines, alphabet):
    tokenizer = Tokenizer(models.BPE(unk_token=None if alphabet else "<unk>"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizer, decoder
    specials = [] if alphabet else ["<unk>"]
    tokenizer.train_from_iterator(
        lines, trainers.BpeTrainer(vocab_size=32000, initial_alphabet=alphabet, special_tokens=specials, show_progress=False)
    )
    return tokenizer


def shapes(lines):
    letters = pre_tokenizers.ByteLevel.alphabet()
    spell = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    words = pre_tokenizers.Split(Regex(LLAMA3_WORDS), "isolated")
    yield "GPT-2", train(pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel(), lines, letters)
    yield "Llama 3", train(pre_tokenizers.Sequence([words, spell]), decoders.ByteLevel(), lines, letters)
    marked = train(pre_tokenizers.Metaspace(), decoders.Metaspace(), lines, [])
    marked.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tree = json.loads(marked.to_str()) | {"pre_tokenizer": None}
    yield "Llama 2", Tokenizer.from_str(json.dumps(tree))


def molt_seconds(bench, tokenizer, text, name):
    done = subprocess.run(
        [bench, f"--benchmark_filter=^{name}", "--benchmark_format=json"],
        env=os.environ | {"MOLT_BENCH_TOKENIZER": tokenizer, "MOLT_BENCH_TEXT": text},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)["benchmarks"][0]["real_time"] / 1000


def peer_seconds(tokenizer, lines):
    start = time.perf_counter()
    tokenizer.encode_batch_fast(lines)
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bench", default="build/release/molt_text_bench")
    parser.add_argument("--text", default=os.environ.get("MOLT_SHARED", "../shared") + "/data/wikitext2/test.txt")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    lines = Path(options.text).read_text().split("\n")
    megabytes = Path(options.text).stat().st_size / 1e6
    print(f"{options.text}: {megabytes:.2f} MB, one thread, median of {options.repeats}")
    for name, tokenizer in shapes(lines):
        with tempfile.TemporaryDirectory() as folder:
            path = folder + "/tokenizer.json"
            tokenizer.save(path)
            loaded = Tokenizer.from_file(path)
            ours, peers = [], []
            for _ in range(options.repeats):
                ours.append(molt_seconds(options.bench, path, options.text, "encode/real_time/threads:1"))
                peers.append(peer_seconds(loaded, lines))
            mine, peer = statistics.median(ours), statistics.median(peers)
            row = f"molt {megabytes / mine:6.1f} MB/s   tokenizers {megabytes / peer:6.1f} MB/s   ratio {peer / mine:5.1f}"
            print(f"{name:8} {row}", flush=True)


if __name__ == "__main__":
    main()
