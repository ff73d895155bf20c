"""Event files of `molt train` as TensorBoard's own reader sees them, of a run that is stopped and continued."""

import json
import os
import pathlib
import subprocess

import pytest

accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

MOLT = os.environ.get("MOLT", "build/release/molt")
pytestmark = pytest.mark.skipif(not pathlib.Path(MOLT).exists(), reason=f"{MOLT} is not built")

CONFIG = """
tokenizer: models/tiny-teacher
model:
  base_model:
    hidden_size: 16
    decoder: {{type: fixed, num_blocks: 1, block: {{mixer: {{type: attention, heads: 2, head_groups: 1, head_size: 8}}, mlp: {{intermediate_size: 24}}}}}}
data: {{synthetic: {{}}}}
held_out: {{test: {{data: {{synthetic: {{split: test}}}}, tokens: 256}}}}
training: {{steps: 12, micro_batch_tokens: 256, log_every: 2, evaluate_every: 4, checkpoint_every: 5, tensorboard: true, log_layer_norms: true}}
device: cpu
output: {output}
"""


def train(config, *more):
    subprocess.run([MOLT, "train", config, "--quiet", "--threads", "1", *more], check=True, capture_output=True)


def test_tensorboard_reads_what_metrics_say(tmp_path):
    config = tmp_path / "train.yaml"
    config.write_text(CONFIG.format(output=tmp_path / "run"))
    train(config)
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    # The newest checkpoint is lost: steps 11 and 12 are made once more, and count once.
    subprocess.run(["rm", "-r", tmp_path / "run/checkpoints/00000012"], check=True)
    train(config)

    reader = accumulators.EventAccumulator(str(tmp_path / "run/tensorboard"))
    reader.Reload()
    for tag, key in (("train/loss", "loss"), ("train/learning_rate", "learning_rate"), ("train/gradient_norm", "gradient_norm")):
        events = reader.Scalars(tag)
        expected = [(line["step"], line[key]) for line in lines if "loss" in line]
        assert [event.step for event in events] == [step for step, _ in expected]
        assert [event.value for event in events] == pytest.approx([value for _, value in expected], rel=1e-6)
    evaluations = [(line["step"], line["evaluation"]["test.loss"]) for line in lines if "evaluation" in line]
    assert [(event.step, pytest.approx(event.value)) for event in reader.Scalars("evaluation/test.loss")] == evaluations
    assert "train/gradient_norms/layers.0" in reader.Tags()["scalars"]
