"""A mistake of the user's ends in one line that names the place, and exit code 2."""

import json
import os
import pathlib
import shutil
import subprocess
import time

import pytest

MOLT = os.environ.get("MOLT", "build/release/molt")
TEACHER = pathlib.Path(__file__).parents[2] / "models/tiny-teacher"
pytestmark = pytest.mark.skipif(not pathlib.Path(MOLT).exists(), reason=f"{MOLT} is not built")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Broken copies of the tiny teacher and broken files."""
    folder = tmp_path_factory.mktemp("mistakes")
    for name in ("truncated", "no-json", "no-layers"):
        shutil.copytree(TEACHER, folder / name)
    with open(folder / "truncated/model.safetensors", "r+b") as file:
        file.truncate(file.seek(0, os.SEEK_END) // 2)
    (folder / "no-json/config.json").write_text('{"model_type": ')
    config = json.loads((TEACHER / "config.json").read_text())
    del config["num_hidden_layers"]
    (folder / "no-layers/config.json").write_text(json.dumps(config))
    (folder / "recipe-results").mkdir()
    (folder / "recipe-results/recipe.json").write_text("{}")
    (folder / "empty.jsonl").write_text("")
    (folder / "no-field.jsonl").write_text('{"words": "a"}\n')
    (folder / "data.jsonl").write_text('{"text": "a b c"}\n')
    (folder / "recipe.yaml").write_text("output: runs/a\nstages: []\nteacher: {}\n")
    (folder / "training.yaml").write_text("model: {}\noutput: runs/a\n")
    (folder / "preparing.yaml").write_text("input: [data.jsonl]\n")
    (folder / "wrong-key.yaml").write_text("training:\n  stepz: 5\n")
    return folder


MISTAKES = [
    ("generat", 'did you mean "generate"?'),
    ("generate TEACHER --prompt a --max-tokens 0", "--max-tokens: found 0, expected at least 1"),
    ("generate TEACHER --prompt a --seed 99999999999999999999", '--seed: found "99999999999999999999", expected a number that fits'),
    ("generate recipe-results --prompt a", "recipe-results: found the results of a recipe, expected one of its stages"),
    ("generate TEACHER --prompt a --form chat", "found --set, --limit or --form, expected --check with them"),
    ("generate absent --prompt a", "absent: no such folder"),
    ("generate Qwen/Qwen3-0.6B --prompt a", "Qwen/Qwen3-0.6B: no such folder; if it is a name on the Hugging Face Hub, hf download"),
    ("generate truncated --prompt a", "truncated/model.safetensors: "),
    ("generate no-json --prompt a", "no-json/config.json:1:16: no valid JSON: "),
    ("prepare --input wrong-key.yaml --tokenizer TEACHER --output shards", "wrong-key.yaml:1:3: no valid JSON: "),
    ("generate no-layers --prompt a", "no-layers/config.json: num_hidden_layers: missing"),
    ("generate TEACHER --input empty.jsonl --output out", "empty.jsonl: found no line"),
    ("generate TEACHER --input no-field.jsonl --output out", 'no-field.jsonl:1: found neither "prompt"'),
    ("generate TEACHER --prompt a --top-p 2", "top_p: found 2"),
    ("chat TEACHER --max-tokens -1", "--max-tokens: found -1, expected at least 1"),
    ("generate TEACHER --prompt a --max-tokens x", '--max-tokens: found "x", expected a number'),
    ("convert TEACHER --layers 99 --output out", "--layers: found layer 99, expected 0 to 11"),
    ("rank TEACHER --method loo --data empty.jsonl --output out", "empty.jsonl: found no manifest.json, expected a folder that"),
    ("evaluate TEACHER --task gsm8k --data no-field.jsonl --output out", "no-field.jsonl:1: answer: missing"),
    ("evaluate TEACHER absent --task synthetic --limit 1 --output out", "absent: "),
    ("evaluate TEACHER --task synthetic --limit 1 --output data.jsonl --quiet", "data.jsonl/"),
    ("inspect TEACHER --step 3", "--step: expected --batch beside it"),
    ("logits TEACHER --input absent.jsonl --output out", "absent.jsonl: cannot open"),
    ("train", "CONFIG is required (molt train --help shows what is accepted)"),
    ("rank TEACHER --method random --data synthetic --output out", "--data: no setting of molt rank --method random (known here: method"),
    ("rank TEACHER --data synthetic --steps 5 --output out", "--steps: no setting of molt rank --method loo"),
    ("rank TEACHER --data synthetic --method mmr --scope mixer --output out", "--scope: no setting of molt rank --method mmr"),
    ("rank TEACHER --data synthetic --teacher TEACHER --output out", "--teacher: no setting of molt rank --method loo"),
    ("rank TEACHER --method loop --output out", "expected loo|mmr|kl|random|uniform|list (molt rank --help shows what is accepted)"),
    ("logits TEACHER --output out", "--input: expected exactly one of --input and --data"),
    ("logits TEACHER --data shards --output out", "--data: expected --top-k N beside it"),
    ("logits TEACHER --input data.jsonl --top-k 8 --output out", "--top-k: found --input, expected --data: what is distilled from"),
    ("logits TEACHER --input data.jsonl --temperature 2 --output out", "--temperature: found --input, expected --data and --top-k"),
    ("logits TEACHER --data absent --top-k 386 --output out", "--top-k: found 386, expected a number from 1 to 385"),
    ("logits TEACHER --data absent --top-k 8 --output out", "absent: found no manifest.json, expected a folder that"),
    ("compare TEACHER TEACHER --input no-field.jsonl --top-k 8", "no-field.jsonl:1: "),
    ("train wrong-key.yaml", 'wrong-key.yaml:2: training.stepz: unknown key (did you mean "steps"?)'),
    ("train recipe.yaml", "recipe.yaml:2: stages: found a recipe, which `molt distill` reads, expected a training's configuration"),
    ("distill training.yaml --dry-run", "training.yaml:1: model: found a training's configuration, which `molt train` reads, expected a recipe"),
    ("prepare recipe.yaml", "recipe.yaml:2: stages: found a recipe, which `molt distill` reads, expected a configuration of prepare"),
    ("inspect TEACHER --batch recipe.yaml", "recipe.yaml:2: stages: found a recipe, which `molt distill` reads, expected a training's"),
    ("train preparing.yaml", "preparing.yaml:1: input: found a configuration of prepare, which `molt prepare` reads, expected a training's"),
    ("prepare data.jsonl", "data.jsonl: found data, expected a YAML file; data goes to --input: molt prepare --input data.jsonl"),
    ("prepare data.jsonl.gz", "data.jsonl.gz: found data, expected a YAML file; data goes to --input"),
    ("prepare TEACHER", "found a folder, expected a YAML file; data goes to --input and a model to --tokenizer"),
    ("train data.jsonl", "name its folder there: data: {path: DATA}"),
    ("train TEACHER", "found a folder, expected a YAML file; name a model there: model: {pretrained: {path: "),
    ("train truncated/model.safetensors", "truncated/model.safetensors: found weights, expected a YAML file; name a model there"),
    ("distill data.jsonl --dry-run", "data.jsonl: found data, expected a YAML file; prepare data (molt prepare"),
    ("distill TEACHER", "found a folder, expected a YAML file; name the teacher there: teacher: {pretrained: {path: "),
    ("inspect TEACHER --batch data.jsonl", "data.jsonl: found data, expected a YAML file; prepare data and show its folder: molt prepare --input data.jsonl"),
    ("prepare --input empty.jsonl --tokenizer TEACHER --output shards", "the input holds no sample"),
    ("chat TEACHER --context 900000000000 --max-tokens 5", "out of memory: "),
]


@pytest.mark.parametrize("command, expected", MISTAKES)
def test_one_line_and_exit_code_2(folder, command, expected):
    arguments = [str(TEACHER) if word == "TEACHER" else word for word in command.split()]
    ended = subprocess.run([os.path.abspath(MOLT), *arguments], cwd=folder, capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
    assert expected in ended.stderr
    assert not (folder / "out").exists()


@pytest.mark.parametrize("command", [["config", "train"], ["inspect", str(TEACHER)]])
def test_results_that_find_no_room_are_a_mistake(command):
    with open("/dev/full", "w") as full:
        ended = subprocess.run([MOLT, *command], stdout=full, stderr=subprocess.PIPE, text=True)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: standard output: cannot write"), ended.stderr


def test_a_limit_on_the_size_of_files_is_a_failed_write(tmp_path):
    limited = f"ulimit -f 1; exec {os.path.abspath(MOLT)} synthesize --problems 1000 --output problems.jsonl --quiet"
    ended = subprocess.run(["sh", "-c", limited], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 2, ended
    assert ended.stderr == "error: problems.jsonl: cannot write: File too large\n"
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("user", [{}, {"OMP_WAIT_POLICY": "active"}, {"GOMP_SPINCOUNT": "7"}])
def test_waiting_threads_spin_for_a_bounded_time(tmp_path, user):
    plain = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    command = [MOLT, "synthesize", "--problems", "100000000", "--output", str(tmp_path / "problems.jsonl"), "--quiet"]
    running = subprocess.Popen(command, env=plain | user)
    try:
        time.sleep(2)
        found = dict(entry.split("=", 1) for entry in pathlib.Path(f"/proc/{running.pid}/environ").read_text().split("\0") if entry)
    finally:
        running.kill()
        running.wait()
    assert found.get("GOMP_SPINCOUNT") == (user.get("GOMP_SPINCOUNT") if user else "10000")
    assert found.get("OMP_WAIT_POLICY") == user.get("OMP_WAIT_POLICY")
