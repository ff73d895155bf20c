"""molt's tokenizer beside Hugging Face `tokenizers`, in turns in one run: both on one thread, then molt on two.

    python bench/peers/tokenizer.py [--bench build/release/molt_text_bench] [--text FILE] [--repeats 5] [--tokenizers FOLDER]

Tokenizers are trained on the text in the shapes of GPT-2, Llama 3 and Llama 2 (BPE) and of Unigram as SentencePiece makes it, and
kept in FOLDER for the next run; each line is encoded by itself, as a training corpus is. The peer is measured by
encode_batch_fast, its quickest call (no offsets). Medians.
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
    yield "Unigram", unigram(lines)


def unigram(lines):
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer.train_from_iterator(
        lines, trainers.UnigramTrainer(vocab_size=16000, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False)
    )
    return tokenizer


def molt_rate(bench, tokenizer, text, threads):
    """Bytes a second."""
    done = subprocess.run(
        [bench, f"--benchmark_filter=^encode/real_time/threads:{threads}$", "--benchmark_format=json"],
        env=os.environ | {"MOLT_BENCH_TOKENIZER": str(tokenizer), "MOLT_BENCH_TEXT": text},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)["benchmarks"][0]["bytes_per_second"]


def peer_rate(tokenizer, lines, size):
    start = time.perf_counter()
    tokenizer.encode_batch_fast(lines)
    return size / (time.perf_counter() - start)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bench", default="build/release/molt_text_bench")
    parser.add_argument("--text", default=os.environ.get("MOLT_SHARED", "../shared") + "/data/wikitext2/test.txt")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tokenizers", type=Path, default=Path(tempfile.gettempdir()) / "molt-bench-tokenizers")
    options = parser.parse_args()
    lines = Path(options.text).read_text().split("\n")
    size = Path(options.text).stat().st_size
    options.tokenizers.mkdir(parents=True, exist_ok=True)
    if len(list(options.tokenizers.glob("*.json"))) < 4:
        for name, tokenizer in shapes(lines):
            tokenizer.save(str(options.tokenizers / f"{name}.json"))
    print(f"{options.text}: {size / 1e6:.2f} MB, MB/s, median of {options.repeats}")
    for path in sorted(options.tokenizers.glob("*.json")):
        loaded = Tokenizer.from_file(str(path))
        one, two, peers = [], [], []
        for _ in range(options.repeats):
            one.append(molt_rate(options.bench, path, options.text, 1))
            peers.append(peer_rate(loaded, lines, size))
            two.append(molt_rate(options.bench, path, options.text, 2))
        mine, both, peer = statistics.median(one), statistics.median(two), statistics.median(peers)
        row = f"tokenizers {peer / 1e6:5.1f}   molt {mine / 1e6:6.1f} ({mine / peer:4.1f} x)   on two threads {both / 1e6:6.1f}"
        print(f"{path.stem:8} {row} ({both / mine:4.2f} x more)", flush=True)


if __name__ == "__main__":
    main()
