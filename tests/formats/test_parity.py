"""Mistral, Llama and hybrid folders against transformers: molt reads what transformers wrote and computes the same logits and greedy
continuations, and what molt writes back holds the same bytes."""
import json
import os
import pathlib
import subprocess

import pytest
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import save_file

SHARED = os.environ.get("MOLT_SHARED")
BINARY = pathlib.Path(os.environ.get("MOLT", "build/release/molt")).parent / "molt_formats_tests"
CONTINUATION = 12

pytestmark = pytest.mark.skipif(not BINARY.exists(), reason=f"{BINARY} is not built")

SIZES = dict(hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=2, vocab_size=61,
             max_position_embeddings=128, rms_norm_eps=1e-5, initializer_range=0.2, use_cache=True)
CASES = {
    "mistral": ("Mistral", dict(sliding_window=None, rope_theta=1e6)),
    "mistral_window": ("Mistral", dict(sliding_window=7)),
    "mistral_window_by_default": ("Mistral", dict()),
    "mistral_head_dim": ("Mistral", dict(sliding_window=None, head_dim=20)),
    "mistral_tied": ("Mistral", dict(sliding_window=5, tie_word_embeddings=True)),
    "llama": ("Llama", dict()),
    "llama_tied": ("Llama", dict(tie_word_embeddings=True, num_key_value_heads=6)),
    "llama_one_key_head": ("Llama", dict(num_key_value_heads=1, head_dim=8, rope_theta=500.0)),
    "llama_bf16": ("Llama", dict(dtype=torch.bfloat16)),
}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Such small models are faster on one core than on several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make_model(kind, options):
    options = dict(options)
    dtype = options.pop("dtype", torch.float32)
    theta = options.pop("rope_theta", None)
    config = getattr(transformers, kind + "Config")(**{**SIZES, **options})
    if theta:
        config.rope_parameters = {"rope_type": "default", "rope_theta": theta}
    config.eos_token_id = config.bos_token_id = None
    return getattr(transformers, kind + "ForCausalLM")(config).to(dtype)


def write_expected(folder, tokens):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32).eval()
    with torch.no_grad():
        logits = model(tokens, use_cache=False).logits
        greedy = model.generate(tokens, attention_mask=torch.ones_like(tokens), do_sample=False, max_new_tokens=CONTINUATION,
                                eos_token_id=None, pad_token_id=0)
    save_file({"tokens": tokens, "logits": logits.contiguous(), "greedy": greedy}, folder / "expected.safetensors")


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parity")
    for seed, (name, (kind, options)) in enumerate(CASES.items()):
        torch.manual_seed(seed)
        model = make_model(kind, options)
        model.save_pretrained(folder / name / "model", max_shard_size="60KB" if name == "mistral" else "5GB")
        write_expected(folder / name, torch.randint(0, SIZES["vocab_size"], (3, 20)))
    return folder


def run(test, **environment):
    command = [str(BINARY), f"--gtest_filter={test}"]
    result = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1", **environment}, capture_output=True, text=True)
    assert result.returncode == 0 and "PASSED" in result.stdout and "SKIPPED" not in result.stdout, result.stdout + result.stderr


def tensors(folder):
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            found.update({name: opened.get_tensor(name) for name in opened.keys()})
    return found


def test_logits_and_greedy_continuations_are_those_of_transformers(cases):
    run("Parity.LogitsAndGreedyContinuations", MOLT_PARITY=str(cases))


@pytest.mark.skipif(not SHARED, reason="MOLT_SHARED is not set")
def test_a_model_by_somebody_else(tmp_path):
    source = pathlib.Path(SHARED) / "data" / "stories260k"
    (tmp_path / "stories").mkdir()
    (tmp_path / "stories" / "model").symlink_to(source)
    torch.manual_seed(0)
    write_expected(tmp_path / "stories", torch.randint(0, 512, (2, 96)))
    run("Parity.LogitsAndGreedyContinuations", MOLT_PARITY=str(tmp_path))


def test_exports_hold_the_same_bytes_and_load_in_transformers(cases, tmp_path):
    run("Parity.Exports", MOLT_PARITY=str(cases), MOLT_PARITY_EXPORT=str(tmp_path))
    for name, (kind, _) in CASES.items():
        source, export = tensors(cases / name / "model"), tensors(tmp_path / name)
        assert source.keys() == export.keys()
        for tensor in source:
            assert source[tensor].dtype == export[tensor].dtype
            assert torch.equal(source[tensor].view(torch.uint8), export[tensor].view(torch.uint8)), (name, tensor)
        assert json.loads((cases / name / "model" / "config.json").read_text()) == json.loads((tmp_path / name / "config.json").read_text())
        model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / name)
        assert type(model).__name__ == kind + "ForCausalLM"
