"""What `molt train` plans to use before its first step, against what its process was given on the CPU. Checkpoints are written from the state
itself here: how long a copy lives beside the next steps depends on the disk."""
import json
import os
import pathlib
import subprocess
import sys

import pytest

MOLT = os.environ.get("MOLT", "build/release/molt")
ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIG = """
tokenizer: {tokenizer}
model:
  base_model:
    hidden_size: {hidden}
    vocabulary: 8192
    decoder:
      type: layout
      blocks:
        full: {{mixer: {{type: attention, heads: {heads}, head_groups: 2, head_size: 64}}, mlp: {{intermediate_size: 1024}}}}
        state: {{mixer: {{type: mamba, d_inner: {hidden}, d_xb: 128, state_size: 16, dt_rank: 24}}, mlp: {{intermediate_size: 1024}}}}
      layout: {layout}
data: {{synthetic: {{seed: 1}}}}
training: {{steps: 2, micro_batch_tokens: {tokens}, recompute: {recompute}, peak_tflops: 0,
  save_in_background: false}}
device: cpu
output: {output}
"""


def most_resident(command):
    """Peak resident bytes of a process, alone: measured by a child of our own, whose only child it is."""
    script = ("import resource, subprocess, sys\n"
              "code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode\n"
              "print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)")
    done = subprocess.run([sys.executable, "-c", script, *map(str, command)], capture_output=True, text=True,
                          env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=300)
    code, peak = map(int, done.stdout.split())
    assert code == 0, done.stdout + done.stderr
    return peak


def run(folder, **sizes):
    """(planned, resident) bytes of a training."""
    name = "-".join(str(value) for value in sizes.values() if not isinstance(value, list))
    config = folder / f"{name}.yaml"
    config.write_text(CONFIG.format(tokenizer=ROOT / "models" / "tiny-teacher", output=folder / name, **sizes))
    peak = most_resident([MOLT, "train", config, "--threads", 1])
    start = json.loads((folder / name / "events.jsonl").read_text().splitlines()[0])
    return start["memory_plan"], peak


@pytest.mark.parametrize("recompute", ["none", "mixer", "block"])
def test_the_plan_is_right_within_a_tenth(recompute, tmp_path):
    least, program = run(tmp_path, hidden=128, heads=2, layout=["full"], tokens=256, recompute="none")
    plan, peak = run(tmp_path, hidden=384, heads=6, layout=["full", "state", "full", "state", "full", "full"], tokens=2048,
                     recompute=recompute)
    planned, used = plan["total"] - least["total"], peak - program
    assert planned > 3e8
    print(f"{recompute}: planned {planned / 2**20:.0f} MiB, used {used / 2**20:.0f}")
    assert 0.9 < used / planned < 1.1, (planned, used, plan)
