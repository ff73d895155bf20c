"""From problems to training data in two commands, and what evaluate leaves, with the teacher that comes with Molt."""
import json
import os
import pathlib
import subprocess

import pytest

MOLT = os.environ.get("MOLT", "build/release/molt")
TEACHER = pathlib.Path(__file__).parents[2] / "models/tiny-teacher"

pytestmark = pytest.mark.skipif(not pathlib.Path(MOLT).exists(), reason=f"{MOLT} is not built")


def molt(*arguments, code=0):
    done = subprocess.run([MOLT, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return done


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_right_answers_become_training_data(tmp_path):
    problems, traces = tmp_path / "problems.jsonl", tmp_path / "traces.jsonl"
    molt("synthesize", "--problems", 8, "--seed", 21, "--output", problems)

    def generate(n):
        done = molt("generate", TEACHER, "--check", "synthetic", "--input", problems, "--n", n, "--temperature", 1, "--seed", 1,
                    "--output", traces, "--json", "--device", "cpu", "--threads", 1, "--quiet")
        return json.loads(done.stdout)

    counts = generate(4)
    samples = lines(tmp_path / "traces.jsonl.samples/samples.jsonl")
    assert counts["samples"] == len(samples) == 32
    assert counts["wrong"] + counts["unfinished"] + counts["repeated"] + counts["kept"] == 32
    kept = lines(traces)
    assert counts["kept"] == len(kept) > 0
    assert len({(line["prompt"], " ".join(line["completion"].split())) for line in kept}) == len(kept)
    for line in kept:
        assert line["completion"].split(":")[-1].replace(" ", "") == line["answer"]

    before = traces.read_bytes()
    assert generate(4) == counts and traces.read_bytes() == before  # nothing is answered again
    more = generate(6)
    assert more["samples"] == 48 and more["kept"] >= counts["kept"]

    done = molt("prepare", "--input", traces, "--tokenizer", TEACHER, "--output", tmp_path / "shards")
    assert json.loads((tmp_path / "shards/manifest.json").read_text())["samples"] == more["kept"], done.stderr


def test_prompts_of_ones_own_are_checked_by_their_answers(tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(json.dumps({"prompt": "jan has 3 apples . how many apples does jan have ?", "answer": "6/2"}) + "\n")
    done = molt("generate", TEACHER, "--check", "answers", "--input", prompts, "--max-tokens", 40, "--json", "--device", "cpu",
                "--output", tmp_path / "traces.jsonl")
    assert json.loads(done.stdout)["kept"] == 1
    assert molt("generate", TEACHER, "--check", "mmlu", "--input", prompts, "--output", tmp_path / "x", code=2).stderr


def test_evaluate_gives_pass_and_majority_and_a_page(tmp_path):
    done = molt("evaluate", TEACHER, "--task", "synthetic", "--limit", 4, "--n", 2, "--temperature", 1, "--html", "--json", "--device",
                "cpu", "--output", tmp_path)
    score = json.loads(done.stdout)[0]
    assert score["samples"] == 8 and set(score["pass_at"]) == set(score["majority_at"]) == {"1", "2"}
    assert score["pass_at"]["1"]["accuracy"] == score["accuracy"] <= score["pass_at"]["2"]["accuracy"]
    (page,) = tmp_path.rglob("samples.html")
    assert page.read_text().count("<summary>") == 4 + 8


def test_perplexity_is_measured(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("jan has 3 apples . how many apples does jan have ?")
    done = molt("evaluate", TEACHER, "--task", "perplexity", "--data", text, "--json", "--device", "cpu", "--output", tmp_path / "out")
    found = json.loads(done.stdout)[0]
    assert found["bytes"] == len(text.read_text()) and found["perplexity"] > 1
    (folder,) = (tmp_path / "out").iterdir()
    assert json.loads((folder / "perplexity/score.json").read_text())["perplexity"] == found["perplexity"]
    again = molt("evaluate", TEACHER, "--task", "perplexity", "--data", text, "--device", "cpu", "--output", tmp_path / "out")
    assert f"perplexity {found['perplexity']:.5g}" in again.stdout
