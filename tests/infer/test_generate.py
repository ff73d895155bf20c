"""`molt generate` against transformers: greedy continuations are equal, token for token; a real model tells its published story."""
import json
import os
import pathlib
import signal
import subprocess
import time

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models

MOLT = os.environ.get("MOLT", "build/release/molt")
STORIES = pathlib.Path(os.environ.get("MOLT_SHARED", "")) / "data/stories260k"
STORY = (
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a big, red ball. "
    "She wanted to play with it, but it was too high."
)

pytestmark = pytest.mark.skipif(not pathlib.Path(MOLT).exists(), reason=f"{MOLT} is not built")
needs_stories = pytest.mark.skipif(not STORIES.is_dir(), reason=f"{STORIES} is not there")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Such small models are faster on one core than on several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def molt(*arguments, code=0):
    done = subprocess.run([MOLT, *map(str, arguments), "--threads", "1"], capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return done


@needs_stories
def test_stories260k_tells_its_published_story():
    start = "Once upon a time"
    told = start + molt("generate", STORIES, "--prompt", start, "--max-tokens", 100).stdout
    assert told.startswith(STORY), told


@needs_stories
def test_stop_strings_end_a_text():
    told = molt("generate", STORIES, "--prompt", "Once upon a time", "--max-tokens", 100, "--stop", "never", "--stop", " Lily").stdout
    assert told == ", there was a little girl named\n"


@needs_stories
def test_samples_repeat_by_seed_whatever_runs_beside_them():
    def texts(*arguments):
        out = molt("generate", STORIES, "--prompt", "One day", "--max-tokens", 20, "--temperature", 1, "--top-p", 0.95, "--json", *arguments)
        return [sample["text"] for sample in json.loads(out.stdout)]

    four = texts("--n", 4, "--seed", 3)
    assert len(set(four)) == 4
    assert texts("--n", 4, "--seed", 3, "--batch", 1) == four
    assert texts("--seed", 3) == four[:1]
    assert texts("--seed", 4) != four[:1]


def save_model(folder, kind, **settings):
    """A random model with well separated logits, and a tokenizer whose token i is the i-th character."""
    torch.manual_seed(5)
    config = dict(hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=2, vocab_size=64,
                  max_position_embeddings=128, initializer_range=0.2, eos_token_id=None, bos_token_id=None, pad_token_id=0) | settings
    config_class, model_class = {"mistral": (transformers.MistralConfig, transformers.MistralForCausalLM),
                                 "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM)}[kind]
    model = model_class(config_class(**config)).eval()
    model.save_pretrained(folder)
    tokenizer = Tokenizer(models.BPE({chr(0x4E00 + i): i for i in range(config["vocab_size"])}, []))
    tokenizer.decoder = decoders.Fuse()
    tokenizer.save(str(folder / "tokenizer.json"))
    return model


@pytest.mark.parametrize("kind, settings", [
    ("llama", {}),
    ("llama", {"tie_word_embeddings": True, "num_key_value_heads": 6}),
    ("mistral", {"sliding_window": None}),
    ("mistral", {"sliding_window": 7}),
])
def test_greedy_continuations_equal_transformers(tmp_path, kind, settings):
    model = save_model(tmp_path / "model", kind, **settings)
    prompts = [[int(token) for token in torch.randint(0, 64, (length,))] for length in (1, 3, 12, 40)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"tokens": prompt}) + "\n" for prompt in prompts))
    molt("generate", tmp_path / "model", "--input", tmp_path / "in.jsonl", "--output", tmp_path / "out.jsonl", "--max-tokens", 30)
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    for prompt, line in zip(prompts, lines, strict=True):
        with torch.no_grad():
            expected = model.generate(torch.tensor([prompt]), max_new_tokens=30, do_sample=False, eos_token_id=None)[0, len(prompt):]
        assert [ord(character) - 0x4E00 for character in line["completion"]] == expected.tolist()
        assert line["finish_reason"] == "length"


def test_an_interrupted_file_is_continued(tmp_path):
    save_model(tmp_path / "model", "llama", max_position_embeddings=4096)
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"tokens": [i % 64], "number": i}) + "\n" for i in range(200)))
    arguments = ["generate", tmp_path / "model", "--input", tmp_path / "in.jsonl", "--output", tmp_path / "out.jsonl",
                 "--max-tokens", 200, "--temperature", 1, "--batch", 4]
    process = subprocess.Popen([MOLT, *map(str, arguments), "--threads", "1"], stderr=subprocess.DEVNULL)
    while process.poll() is None and not ((tmp_path / "out.jsonl").exists() and (tmp_path / "out.jsonl").stat().st_size):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    before = (tmp_path / "out.jsonl").read_text()
    assert 0 < before.count("\n") < 200 and before.endswith("\n")
    molt(*arguments)
    after = (tmp_path / "out.jsonl").read_text()
    assert after.startswith(before)
    assert [json.loads(line)["number"] for line in after.splitlines()] == list(range(200))


def test_a_device_and_a_pipe_are_written_only(tmp_path):
    """What stands in them is no earlier run, and reading it would never end."""
    save_model(tmp_path / "model", "llama")
    (tmp_path / "in.jsonl").write_text('{"tokens": [1]}\n')
    arguments = ["generate", tmp_path / "model", "--input", tmp_path / "in.jsonl", "--max-tokens", 2, "--output"]
    assert "/dev/full: cannot write: No space left on device" in molt(*arguments, "/dev/full", code=2).stderr
    assert json.loads(molt(*arguments, "/dev/stdout").stdout)["tokens"] == [1]


def test_mistakes_are_one_line(tmp_path):
    save_model(tmp_path / "model", "llama")
    (tmp_path / "in.jsonl").write_text('{"tokens": [1]}\n{"txt": 1}\n')
    found = molt("generate", tmp_path / "model", "--input", tmp_path / "in.jsonl", "--output", tmp_path / "out.jsonl", code=2).stderr
    assert "in.jsonl:2: found neither" in found and found.count("\n") == 1
    assert not (tmp_path / "out.jsonl").exists()
    found = molt("generate", tmp_path / "model", "--prompt", "a", "--temperature", -1, code=2).stderr
    assert "temperature: found -1" in found
    molt("generate", tmp_path / "model", code=2)


@needs_stories
def test_chat_goes_on_with_the_conversation():
    typed = "Once upon a time\n/help\n/nonsense\n/reset\nOnce upon a time\n/quit\n"
    done = subprocess.run([MOLT, "chat", str(STORIES), "--temperature", "0", "--max-tokens", "12", "--threads", "1"], input=typed,
                          capture_output=True, text=True)
    assert done.returncode == 0
    first, second = done.stdout.splitlines()
    assert first == second and first.startswith(", there was a little")
    assert "/reset" in done.stderr and "found /nonsense" in done.stderr


@needs_stories
def test_bench_measures_models_side_by_side():
    out = molt("bench", STORIES, STORIES, "--batch", "1,2", "--context", "16", "--tokens", 2, "--runs", 2, "--json").stdout
    rows = json.loads(out)
    assert [(row["work"], row["batch"]) for row in rows] == [("prefill", 1)] * 2 + [("decode", 1)] * 2 + [("decode", 2)] * 2
    assert all(row["tokens_per_second"] > 0 for row in rows) and rows[0]["ratio"] == 1
    assert rows[2]["cache_bytes"] == 16 * 5 * 2 * 4 * 8 * 4
