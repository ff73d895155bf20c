"""Adapters as peft has them: peft loads what `molt train` saved, molt computes what peft computes with an adapter of peft's own, and merged
weights compute what unmerged ones do. On the shipped teacher and on a hybrid of it, fine-tuned and distilled."""
import json
import os
import pathlib
import subprocess

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file

MOLT = os.environ.get("MOLT", "build/release/molt")
TEACHER = pathlib.Path(__file__).resolve().parents[2] / "models" / "tiny-teacher"
TOKENS = [[5, 9, 17, 3, 22, 31, 8, 40, 2, 11, 7, 6], [14, 2, 33]]
SFT = "{}"
DISTIL = "{distillation_model: teacher, distillation_loss_implementation: reverse_kl, language_model_loss_factor: 0.5}"


def molt(*arguments, code=0):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([MOLT, *map(str, arguments)], capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("lora")
    (path / "tokens.jsonl").write_text("".join(json.dumps({"tokens": tokens}) + "\n" for tokens in TOKENS))
    molt("convert", TEACHER, "--layers", "3,6", "--output", path / "hybrid")
    return path


def train(folder, base, head, lora):
    run = folder / f"run-{base.name}"
    (folder / "train.yaml").write_text(f"""
model: {{pretrained: {{path: {base}}}, base_model: {{head: {head}}}, lora: {lora}}}
reference_models: {{teacher: {{pretrained: {{path: {TEACHER}}}}}}}
data: {{synthetic: {{seed: 1}}}}
training: {{steps: 8, micro_batch_tokens: 400, optimizer: {{learning_rate: 1e-2}}, schedule: {{warmup: 2}}}}
device: cpu
output: {run}
""")
    molt("train", folder / "train.yaml", "--threads", 1)
    return run


def logits_of_molt(folder, model):
    output = folder / "logits.safetensors"
    molt("logits", model, "--input", folder / "tokens.jsonl", "--output", output, "--device", "cpu", "--threads", 1)
    return [load_file(output)[str(i)] for i in range(len(TOKENS))]


@torch.no_grad()
def logits_of(model):
    return [model(torch.tensor([tokens])).logits[0].float() for tokens in TOKENS]


def base_model(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, trust_remote_code=True).eval()


def largest(a, b):
    return max((x - y).abs().max().item() for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("base, head, lora", [("teacher", SFT, "{rank: 4, alpha: 8, targets: [q_proj, v_proj]}"),
                                              ("hybrid", DISTIL, "{rank: 3, alpha: 12}")])
def test_peft_loads_what_molt_trained(folder, base, head, lora):
    base = TEACHER if base == "teacher" else folder / "hybrid"
    run = train(folder, base, head, lora)
    [checkpoint] = (run / "checkpoints").iterdir()
    adapter = checkpoint / "export"
    before = logits_of(base_model(base))
    model = peft.PeftModel.from_pretrained(base_model(base), adapter).eval()
    theirs = logits_of(model)
    assert largest(theirs, before) > 1e-2
    assert largest(theirs, logits_of_molt(folder, run)) < 1e-4

    merged = folder / f"merged-{base.name}"
    molt("convert", run, "--output", merged)
    assert largest(logits_of_molt(folder, run), logits_of_molt(folder, merged)) < 1e-5
    assert largest(logits_of(base_model(merged)), theirs) < 1e-4
    assert largest(logits_of(model.merge_and_unload()), logits_of_molt(folder, merged)) < 1e-4
    assert (merged / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("options", [dict(r=4, lora_alpha=6, target_modules=["q_proj", "down_proj", "o_proj"]),
                                     dict(r=4, lora_alpha=6, use_rslora=True, target_modules="all-linear"),
                                     dict(r=2, lora_alpha=4, target_modules=["gate_proj", "k_proj"], rank_pattern={"k_proj": 5},
                                          alpha_pattern={"model.layers.2.mlp.gate_proj": 9})])
def test_molt_computes_what_peft_does_with_its_own_adapter(folder, options, tmp_path):
    torch.manual_seed(3)
    model = peft.get_peft_model(base_model(TEACHER), peft.LoraConfig(task_type="CAUSAL_LM", **options)).eval()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(tmp_path / "adapter")
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"] == str(TEACHER)
    theirs = logits_of(model)
    assert largest(theirs, logits_of(base_model(TEACHER))) > 1e-2
    assert largest(theirs, logits_of_molt(folder, tmp_path / "adapter")) < 1e-4


def test_an_adapter_generates_and_is_inspected_as_its_model(folder, tmp_path):
    model = peft.get_peft_model(base_model(TEACHER), peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    model.save_pretrained(tmp_path / "adapter")  # B is zero: the base itself
    prompt = ["--prompt", "tom has 3 apples .", "--max-tokens", 8, "--device", "cpu"]
    assert molt("generate", tmp_path / "adapter", *prompt).stdout == molt("generate", TEACHER, *prompt).stdout != ""
    molt("inspect", tmp_path / "adapter")


def test_what_peft_can_do_beside_is_refused_in_one_line(tmp_path):
    config = peft.LoraConfig(r=2, use_dora=True, target_modules=["q_proj"], task_type="CAUSAL_LM")
    peft.get_peft_model(base_model(TEACHER), config).save_pretrained(tmp_path / "dora")
    error = molt("inspect", tmp_path / "dora", code=2).stderr
    assert error.count("\n") == 1 and "use_dora: found true, expected false" in error, error
