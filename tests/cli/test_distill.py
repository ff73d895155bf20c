"""molt train, rank, convert, distill and config as a user calls them, on a four-layer teacher that is made on the spot."""
import json
import os
import pathlib
import random
import signal
import subprocess
import time

import pytest

MOLT = os.environ.get("MOLT", "build/release/molt")
ROOT = pathlib.Path(__file__).resolve().parents[2]

TRAIN = """
tokenizer: {folder}/tokenizer
output: {folder}/teacher
model:
  base_model:
    hidden_size: 32
    decoder:
      type: fixed
      num_blocks: 4
      block:
        mixer: {{type: attention, heads: 4, head_groups: 2, head_size: 8}}
        mlp: {{type: gated, activation: silu, intermediate_size: 48}}
data: {{synthetic: {{seed: 1}}}}
held_out: {{test: {{data: {{synthetic: {{seed: 1, split: test}}}}, tokens: 500}}}}
training: {{steps: 4, micro_batch_tokens: 400, log_every: 2, checkpoint_every: 2}}
"""

RECIPE = """
teacher: {{pretrained: {{format: mistral, path: {folder}/teacher}}}}
output: {folder}/recipe
data: {{synthetic: {{seed: 1}}}}
training: {{steps: 8, micro_batch_tokens: 250, checkpoint_every: 1, log_every: 1}}
stages:
  - name: one
    mamba_layers: 1
    choose: {{method: loo, held_out_tokens: 300}}
    convert: {{state_size: 8, dt_rank: 4}}
    match: {{steps: 3}}
    head: {{distillation_model: teacher, distillation_loss_implementation: reverse_kl}}
  - name: two
    from: one
    mamba_layers: 2
    choose: {{method: mmr, steps: 3, held_out_tokens: 300, micro_batch_tokens: 200}}
    convert: {{state_size: 8, dt_rank: 4}}
    head: {{distillation_model: teacher, distillation_loss_implementation: reverse_kl}}
  - {{name: one-sft, from: one, mamba_layers: 1}}
  - {{name: one-lora, from: one, mamba_layers: 1, lora: {{rank: 4, targets: ["*_proj"]}}, training: {{steps: 12}}}}
"""


def molt(*arguments, code=0, **options):
    done = subprocess.run([MOLT, *map(str, arguments)], capture_output=True, text=True, timeout=120, **options)
    assert done.returncode == code, f"molt {' '.join(map(str, arguments))} ended with {done.returncode}\n{done.stdout}{done.stderr}"
    return done


def error(*arguments):
    return molt(*arguments, code=2).stderr.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("distill")
    molt("synthesize", "--problems", 1, "--output", folder / "one.jsonl", "--tokenizer", folder / "tokenizer", "--quiet")
    (folder / "train.yaml").write_text(TRAIN.format(folder=folder))
    molt("train", folder / "train.yaml", "--device", "cpu", "--threads", 1)
    return folder


def test_train_leaves_a_run(folder):
    lines = [json.loads(line) for line in (folder / "teacher/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 4]
    assert "test.loss" in lines[-1]["evaluation"]
    export = folder / "teacher/checkpoints/00000004/export"
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in export.iterdir()}
    again = molt("train", folder / "train.yaml", "--device", "cpu", "--threads", 1)
    assert "steps 4" in again.stdout and str(export.parent) in again.stdout


def test_mistakes_of_train_are_one_line(folder):
    unknown = error("train", folder / "train.yaml", "--set", "training.stepz=3")
    assert "training.stepz" in unknown and "did you mean" in unknown
    changed = error("train", folder / "train.yaml", "--set", "training.optimizer.learning_rate=0.1", "--device", "cpu")
    assert "training.optimizer.learning_rate" in changed
    assert "no such file" in error("train", folder / "none.yaml").lower()


def test_rank_convert_and_what_they_refuse(folder):
    loo = molt("rank", folder / "teacher", "--data", "synthetic", "--held-out-tokens", 500, "--output", folder / "loo.json",
               "--device", "cpu", "--threads", 1)
    ranking = json.loads((folder / "loo.json").read_text())
    assert ranking["complete"] and sorted(ranking["ranking"]) == [0, 1, 2, 3]
    scores = {layer["layer"]: layer["score"] for layer in ranking["layers"]}
    assert [scores[layer] for layer in ranking["ranking"]] == sorted(scores.values())
    assert [int(line.split()[0]) for line in loo.stdout.splitlines()[2:]] == ranking["ranking"]
    assert "scope" in error("rank", folder / "teacher", "--data", "synthetic", "--held-out-tokens", 500, "--scope", "mixer",
                            "--output", folder / "loo.json")
    assert "data" in error("rank", folder / "teacher", "--output", folder / "x.json")

    molt("convert", folder / "teacher", "--layers", "1,3", "--set", "state_size=8", "--output", folder / "hybrid")
    config = json.loads((folder / "hybrid/config.json").read_text())
    assert config["hybrid_block_layout"] == ["t", "m2", "t", "m2"]
    assert error("convert", folder / "teacher", "--layers", "1,1", "--output", folder / "x") == "error: --layers: layer 1 is named twice"
    weights = (folder / "hybrid/model.safetensors").read_bytes()
    assert "exists already" in error("convert", folder / "hybrid", "--layers", "0", "--output", folder / "hybrid")
    assert (folder / "hybrid/model.safetensors").read_bytes() == weights
    molt("convert", folder / "hybrid", "--restore", "3", "--teacher", folder / "teacher", "--output", folder / "restored")
    config = json.loads((folder / "restored/config.json").read_text())
    assert config["hybrid_block_layout"] == ["t", "m2", "t", "t"]
    assert "expected --teacher beside it" in error("convert", folder / "hybrid", "--restore", "3", "--output", folder / "x")
    (folder / "mine").mkdir()
    (folder / "mine/note.txt").write_text("keep")
    assert "exists already" in error("convert", folder / "teacher", "--layers", "0", "--output", folder / "mine")
    assert (folder / "mine/note.txt").read_text() == "keep"
    assert "layer 3 is mamba already" in error("convert", folder / "hybrid", "--layers", "3", "--output", folder / "x")
    assert not (folder / "x").exists()


def test_a_kl_guided_ranking_that_was_stopped_ends_as_one_that_was_not(folder):
    command = ["rank", folder / "teacher", "--data", "synthetic", "--method", "kl", "--student-steps", 40, "--steps", 8, "--greedy",
               "--held-out-tokens", 300, "--set", "micro_batch_tokens=300", "--set", "mixer.state_size=8", "--device", "cpu", "--threads", 1]
    whole = molt(*command, "--output", folder / "kl-whole.json").stdout
    stops = 0
    # While the student trains, and once candidates are tried.
    for sign in ("kl-cut_student/metrics.jsonl", "kl-cut.json"):
        child = subprocess.Popen([MOLT, *map(str, command), "--output", folder / "kl-cut.json"], stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL)
        while child.poll() is None and not (folder / sign).exists():
            time.sleep(0.002)
        child.send_signal(signal.SIGINT)
        stops += child.wait(timeout=60) == 130
    assert stops > 0
    assert molt(*command, "--output", folder / "kl-cut.json").stdout == whole
    results = [json.loads((folder / name).read_text()) for name in ("kl-whole.json", "kl-cut.json")]
    for result in results:
        result["baseline"].pop("student")
    assert results[0] == results[1] and len(results[0]["rounds"]) == 4
    config = json.loads((folder / "kl-cut_student/checkpoints/00000040/export/config.json").read_text())
    assert config["hybrid_block_layout"] == ["m2"] * 4
    assert "layers: missing, expected the order" in error("rank", folder / "teacher", "--method", "list", "--output", folder / "x.json")


def test_a_recipe_killed_again_and_again_ends_as_one_that_was_not(folder):
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE.format(folder=folder))
    command = ["distill", recipe, "--device", "cpu", "--threads", 1]
    start = time.monotonic()
    molt(*command, "--set", f"output={folder}/whole")
    seconds = time.monotonic() - start
    chance = random.Random(5)
    kills = 0
    for attempt in range(5):
        child = subprocess.Popen([MOLT, *map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            child.wait(timeout=(attempt + chance.random()) / 6 * seconds)
            break
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL if attempt % 2 == 0 else signal.SIGINT)
            code = child.wait(timeout=60)
            if code == 0:  # it had ended before the signal came
                break
            assert code in (-signal.SIGKILL, 130, -signal.SIGINT), code  # the last: before it listens to signals
            kills += 1
    assert kills > 0
    result = molt(*command)
    assert result.stdout.count("M") >= 5  # one sign a layer: 1 + 2 + 1 + 1 Mamba layers
    for name in ("one", "two", "one-sft", "one-lora"):
        for file in ("export/model.safetensors", "export/config.json"):
            assert (folder / "recipe" / name / file).read_bytes() == (folder / "whole" / name / file).read_bytes(), name
    ranking = [json.loads((folder / run / "two/ranking.json").read_text())["layers"] for run in ("recipe", "whole")]
    assert ranking[0] == ranking[1]
    index = json.loads((folder / "recipe/recipe.json").read_text())
    assert [stage["status"] for stage in index["stages"]] == ["finished"] * 4


def test_a_dry_run_needs_nothing(tmp_path):
    plan = molt("distill", ROOT / "recipes/apriel-h1.yaml", "--dry-run", cwd=tmp_path).stdout
    assert "14.974 B" in plan and "H-30-SFT" in plan and "40/50" in plan
    assert not list(tmp_path.iterdir())
    assert "no such folder" in error("distill", ROOT / "recipes/quickstart.yaml", "--dry-run", "--set", "teacher.pretrained.path=nowhere")


def test_a_dry_run_plans_for_a_gpu_that_is_not_here(tmp_path):
    recipe = ROOT / "recipes/one-gpu.yaml"
    fits = molt("distill", recipe, "--dry-run", "--memory", 80, cwd=tmp_path).stdout
    assert "in bfloat16" in fits and "against 74.5 GiB of GPU" in fits and "does not fit" not in fits
    assert molt("distill", recipe, "--dry-run", "--memory", 24, cwd=tmp_path).stdout.count("does not fit") == 2
    assert "--memory: expected --dry-run beside it" in error("distill", recipe, "--memory", 80)


def test_config_prints_every_kind():
    text = molt("config").stdout
    for kind in ("train", "recipe", "rank", "prepare", "model", "synthesize"):
        assert f"# molt config {kind}:" in text
    assert 'did you mean "train"' in error("config", "trian")
