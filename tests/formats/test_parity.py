"""Mistral, Llama, Qwen and hybrid folders against transformers: molt reads what transformers wrote and computes the same logits and greedy
continuations, and what molt writes back holds the same bytes. Hybrids are computed by the modelling files that go into exports."""
import json
import os
import pathlib
import subprocess
import sys

import pytest
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import save_file

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "python"))
from molt_hybrid.configuration_apriel_hybrid_ssm import AprielHybridSSMConfig  # noqa: E402
from molt_hybrid.modeling_apriel_hybrid_ssm import AprielHybridSSMForCausalLM, Mamba  # noqa: E402

transformers.AutoConfig.register("apriel_hybrid_ssm", AprielHybridSSMConfig)
transformers.AutoModelForCausalLM.register(AprielHybridSSMConfig, AprielHybridSSMForCausalLM)

SHARED = os.environ.get("MOLT_SHARED")
BINARY = pathlib.Path(os.environ.get("MOLT", "build/release/molt")).parent / "molt_formats_tests"
CONTINUATION = 12

pytestmark = pytest.mark.skipif(not BINARY.exists(), reason=f"{BINARY} is not built")

MISTRAL = transformers.MistralConfig, transformers.MistralForCausalLM
LLAMA = transformers.LlamaConfig, transformers.LlamaForCausalLM
QWEN2 = transformers.Qwen2Config, transformers.Qwen2ForCausalLM
QWEN3 = transformers.Qwen3Config, transformers.Qwen3ForCausalLM
HYBRID = AprielHybridSSMConfig, AprielHybridSSMForCausalLM
SIZES = dict(hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=2, vocab_size=61,
             max_position_embeddings=128, rms_norm_eps=1e-5, initializer_range=0.2, eos_token_id=None, bos_token_id=None)
SSM = dict(d_inner=48, d_xb=16, d_state=8, dt_rank=3)
YARN = dict(rope_type="yarn", rope_theta=1e4, factor=4.0, original_max_position_embeddings=8)
LLAMA3 = dict(rope_type="llama3", rope_theta=5e5, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16)
# For texts of more positions than the model was trained for, so that it scales; its frequencies are those of each text's length.
DYNAMIC = dict(max_position_embeddings=12, rope_parameters=dict(rope_type="dynamic", rope_theta=1e4, factor=2.0))
CASES = {
    "mistral": (MISTRAL, dict(sliding_window=None, rope_parameters={"rope_type": "default", "rope_theta": 1e6})),
    "mistral_window": (MISTRAL, dict(sliding_window=7)),
    "mistral_window_by_default": (MISTRAL, dict()),
    "mistral_head_dim": (MISTRAL, dict(sliding_window=None, head_dim=20)),
    "mistral_tied": (MISTRAL, dict(sliding_window=5, tie_word_embeddings=True)),
    "llama": (LLAMA, dict()),
    "llama_tied": (LLAMA, dict(tie_word_embeddings=True, num_key_value_heads=6)),
    "llama_one_key_head": (LLAMA, dict(num_key_value_heads=1, head_dim=8)),
    "llama_bf16": (LLAMA, dict(dtype="bfloat16")),
    "llama_biases": (LLAMA, dict(attention_bias=True, mlp_bias=True)),
    "llama_linear": (LLAMA, dict(rope_parameters=dict(rope_type="linear", rope_theta=1e4, factor=3.0))),
    "llama_dynamic": (LLAMA, DYNAMIC),
    "llama_llama3": (LLAMA, dict(rope_parameters=LLAMA3, tie_word_embeddings=True)),
    "llama_llama3_in_the_old_form": (LLAMA, dict(rope_parameters=LLAMA3)),
    "mistral_yarn": (MISTRAL, dict(sliding_window=None, rope_parameters=YARN)),
    "mistral_dynamic_in_the_old_form": (MISTRAL, dict(sliding_window=6) | DYNAMIC),
    "qwen2": (QWEN2, dict()),
    "qwen2_upper_windows": (QWEN2, dict(use_sliding_window=True, sliding_window=5, max_window_layers=1)),
    "qwen2_upper_windows_in_the_old_form": (QWEN2, dict(use_sliding_window=True, sliding_window=5, max_window_layers=2)),
    "qwen2_layer_types": (QWEN2, dict(use_sliding_window=True, sliding_window=4,
                                      layer_types=["sliding_attention", "full_attention", "sliding_attention"])),
    "qwen2_yarn_in_the_old_form": (QWEN2, dict(rope_parameters=YARN | dict(attention_factor=0.8, beta_fast=16.0), tie_word_embeddings=True)),
    "qwen2_fp16": (QWEN2, dict(dtype="float16")),
    "qwen3": (QWEN3, dict(head_dim=16)),
    "qwen3_biases": (QWEN3, dict(head_dim=8, attention_bias=True, tie_word_embeddings=True)),
    "qwen3_windows": (QWEN3, dict(head_dim=12, use_sliding_window=True, sliding_window=5, max_window_layers=2)),
    "qwen3_yarn": (QWEN3, dict(head_dim=20, rope_parameters=YARN | dict(mscale=0.7, mscale_all_dim=0.9, truncate=False))),
    "qwen3_dynamic": (QWEN3, dict(head_dim=8) | DYNAMIC),
    "qwen3_bf16": (QWEN3, dict(head_dim=16, dtype="bfloat16")),
    "hybrid": (HYBRID, dict(hybrid_block_layout=["t", "m2", "swa", "i"], num_hidden_layers=4, sliding_window=7, ssm_cfg=SSM)),
    "hybrid_window": (HYBRID, dict(hybrid_block_layout=["t", "m2", "t"], sliding_window=5, ssm_cfg=SSM | dict(d_conv=3, conv_bias=False))),
    "hybrid_narrow_conv": (HYBRID, dict(hybrid_block_layout=["m2", "t", "m2"], sliding_window=None,
                                        ssm_cfg=SSM | dict(repeat_kv_before_conv=False))),
    "hybrid_without_attention": (HYBRID, dict(hybrid_block_layout=["m2"] * 3, tie_word_embeddings=True, ssm_cfg=SSM | dict(d_xb=48))),
    "hybrid_of_qwen2": (HYBRID, dict(hybrid_block_layout=["swa", "m2", "t"], sliding_window=5, ssm_cfg=SSM, rope_parameters=YARN,
                                     molt=dict(attention=dict(qkv_bias=True)))),
    "hybrid_of_qwen3": (HYBRID, dict(hybrid_block_layout=["t", "m2", "t"], sliding_window=None, ssm_cfg=SSM | dict(d_inner=72, d_xb=24),
                                     head_dim=12, molt=dict(attention=dict(qk_norm=True)))),
    "hybrid_of_llama": (HYBRID, dict(hybrid_block_layout=["m2", "t", "m2"], sliding_window=None, ssm_cfg=SSM, rope_parameters=LLAMA3,
                                     molt=dict(attention=dict(qkv_bias=True, output_bias=True), mlp=dict(bias=True)))),
    "hybrid_bf16": (HYBRID, dict(hybrid_block_layout=["t", "m2", "m2"], sliding_window=None, ssm_cfg=SSM, dtype="bfloat16")),
}
HYBRIDS = [name for name, (kind, _) in CASES.items() if kind is HYBRID]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Such small models are faster on one core than on several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def in_the_old_form(folder):
    """Rewrites config.json as transformers before 5 wrote it."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    rotary = config.pop("rope_parameters")
    config["rope_theta"] = rotary.pop("rope_theta")
    kind = rotary.pop("rope_type")
    if kind != "default":
        config["rope_scaling"] = {"type": kind, **rotary}
    config.pop("layer_types", None)
    config["torch_dtype"] = config.pop("dtype")
    path.write_text(json.dumps(config, indent=2) + "\n")


def write_expected(folder, tokens):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32).eval()
    with torch.no_grad():
        logits = model(tokens, use_cache=False).logits
        greedy = model.generate(tokens, attention_mask=torch.ones_like(tokens), do_sample=False, max_new_tokens=CONTINUATION,
                                eos_token_id=None, pad_token_id=0, use_cache="dynamic" not in folder.name)
    save_file({"tokens": tokens, "logits": logits.contiguous(), "greedy": greedy}, folder / "expected.safetensors")


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parity")
    for seed, (name, ((config, model), options)) in enumerate(CASES.items()):
        torch.manual_seed(seed)
        made = model(config(**(SIZES | options)))
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))  # norms and skips other than 1, biases other than 0
        made = made.to(getattr(torch, options.get("dtype", "float32")))
        made.save_pretrained(folder / name / "model", max_shard_size="60KB" if name in ("mistral", "qwen3") else "5GB")
        if "old_form" in name:
            in_the_old_form(folder / name / "model")
        write_expected(folder / name, torch.randint(0, SIZES["vocab_size"], (3, 20)))
    return folder


@pytest.fixture(scope="module")
def exports(cases, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exports")
    run("Parity.Exports", MOLT_PARITY=str(cases), MOLT_PARITY_EXPORT=str(folder))
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


def config_of(folder):
    config = json.loads((folder / "config.json").read_text())
    config.pop("auto_map", None)  # what a folder of transformers' own does not need
    return config


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


@pytest.mark.parametrize("name", CASES)
def test_exports_hold_the_same_bytes(name, cases, exports):
    source, export = tensors(cases / name / "model"), tensors(exports / name)
    assert source.keys() == export.keys()
    for tensor in source:
        assert source[tensor].dtype == export[tensor].dtype, tensor
        assert torch.equal(source[tensor].view(torch.uint8), export[tensor].view(torch.uint8)), tensor
    assert config_of(cases / name / "model") == config_of(exports / name)


@pytest.mark.parametrize("name", CASES)
def test_exports_load_in_transformers(name, cases, exports):
    """Hybrids through the modelling files that lie in their folder."""
    model = transformers.AutoModelForCausalLM.from_pretrained(exports / name, dtype=torch.float32, trust_remote_code=name in HYBRIDS)
    with safe_open(cases / name / "expected.safetensors", "pt") as expected, torch.no_grad():
        logits = model(expected.get_tensor("tokens")).logits
        assert (logits - expected.get_tensor("logits")).abs().max() < 1e-4


@pytest.fixture(params=HYBRIDS)
def hybrid(request, exports):
    return transformers.AutoModelForCausalLM.from_pretrained(exports / request.param, dtype=torch.float32, trust_remote_code=True).eval()


@torch.no_grad()
def test_the_modelling_file_generates_with_its_cache_and_with_padding(hybrid):
    torch.manual_seed(1)
    tokens = torch.randint(1, SIZES["vocab_size"], (2, 15))
    logits = hybrid(tokens, use_cache=False).logits
    options = dict(do_sample=False, max_new_tokens=6, pad_token_id=0)

    greedy = hybrid.generate(tokens, attention_mask=torch.ones_like(tokens), **options)
    again = tokens
    for _ in range(6):
        again = torch.cat([again, hybrid(again, use_cache=False).logits[:, -1:].argmax(-1)], dim=1)
    assert torch.equal(greedy, again)

    first = hybrid(tokens[:, :7], use_cache=True)
    rest = hybrid(tokens[:, 7:], past_key_values=first.past_key_values, use_cache=True)
    assert (torch.cat([first.logits, rest.logits], dim=1) - logits).abs().max() < 1e-4

    padding = torch.zeros(2, 4, dtype=torch.long)
    ones = torch.ones_like(tokens)
    left, left_mask = torch.cat([padding, tokens], dim=1), torch.cat([padding, ones], dim=1)
    right, right_mask = torch.cat([tokens, padding], dim=1), torch.cat([ones, padding], dim=1)
    assert (hybrid(right, attention_mask=right_mask).logits[:, :15] - logits).abs().max() < 1e-4
    assert (hybrid(left, attention_mask=left_mask).logits[:, 4:] - logits).abs().max() < 1e-4
    assert torch.equal(hybrid.generate(left, attention_mask=left_mask, **options)[:, 4:], greedy)


@torch.no_grad()
def test_the_modelling_file_generates_with_a_cache_of_fixed_size(hybrid):
    tokens = torch.arange(1, 13)[None].repeat(2, 1)
    mask = torch.ones_like(tokens)
    mask[1, :5] = 0
    options = dict(attention_mask=mask, do_sample=False, max_new_tokens=6, pad_token_id=0)
    assert torch.equal(hybrid.generate(tokens, cache_implementation="static", **options), hybrid.generate(tokens, **options))


@torch.no_grad()
def test_the_modelling_file_keeps_packed_sequences_apart(hybrid):
    """Positions that begin anew tell one sequence of a row from the next one."""
    tokens = torch.arange(1, 25).view(2, 12)
    positions = torch.cat([torch.arange(7), torch.arange(4), torch.arange(1)])[None]
    alone = [hybrid(part, use_cache=False).logits for part in tokens.split([7, 4, 1], dim=1)]
    assert (hybrid(tokens, position_ids=positions, use_cache=False).logits - torch.cat(alone, dim=1)).abs().max() < 1e-4


@pytest.mark.parametrize("length", [1, 2, 3, 12, 31])
def test_the_modelling_file_scans_in_spans_as_in_one(length):
    """On a GPU a sequence is cut into spans, on a CPU it is not."""
    torch.manual_seed(3)
    mixer = Mamba(AprielHybridSSMConfig(**(SIZES | CASES["hybrid"][1])), 1)
    with torch.no_grad():
        mixer.A_log.copy_(torch.randn_like(mixer.A_log))
    x, dt, B, C = torch.randn(4, 2, length, SSM["d_inner"])
    state = torch.randn(2, SSM["d_inner"] // SSM["d_state"], SSM["d_state"], SSM["d_state"])
    results = []
    for span in (length, 1, 5):
        inputs = [each.clone().requires_grad_() for each in (x, torch.nn.functional.softplus(dt), B, C, state)]
        y, last = mixer.scan(*inputs, span=span)
        results.append([y, last, *torch.autograd.grad(y.sin().sum() + last.cos().sum(), inputs)])
    for result in results[1:]:
        for value, expected in zip(result, results[0]):
            assert torch.allclose(value, expected, rtol=1e-4, atol=1e-5)


def test_the_modelling_files_say_which_transformers_they_need():
    code = "import transformers; transformers.__version__ = '4.53.2'; import molt_hybrid.configuration_apriel_hybrid_ssm"
    python = pathlib.Path(__file__).resolve().parents[2] / "python"
    ended = subprocess.run([sys.executable, "-c", code], cwd=python, capture_output=True, text=True)
    assert ended.stderr.splitlines()[-1].endswith("need transformers 5.14 or newer, found 4.53.2")


def test_the_modelling_file_refuses_assisted_generation(hybrid):
    """It would take tokens back, and with them states."""
    tokens = torch.tensor([[1, 2, 3, 1, 2, 3, 1, 2]])
    with pytest.raises(ValueError, match="stateful"):
        hybrid.generate(tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=4, prompt_lookup_num_tokens=2, pad_token_id=0)
    helped = transformers.MistralForCausalLM(transformers.MistralConfig(**SIZES))
    with pytest.raises(ValueError, match="AprielHybridSSMForCausalLM cannot be another model's assistant"):
        helped.generate(tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=4, assistant_model=hybrid, pad_token_id=0)


@pytest.mark.parametrize("name", HYBRIDS)
@torch.no_grad()
def test_the_modelling_file_runs_with_weights_that_come_from_disk(name, exports, tmp_path):
    tokens, load = torch.arange(1, 13)[None], transformers.AutoModelForCausalLM.from_pretrained
    inside = load(exports / name, dtype=torch.float32, trust_remote_code=True)
    places = dict.fromkeys(["model.embed_tokens", "model.rotary_emb", "model.norm", "lm_head"], "cpu")
    places |= {f"model.layers.{i}": "disk" for i in range(inside.config.num_hidden_layers)}
    outside = load(exports / name, dtype=torch.float32, trust_remote_code=True, device_map=places, offload_folder=tmp_path)
    assert torch.equal(outside(tokens).logits, inside(tokens).logits)
    assert isinstance(inside(tokens, return_dict=False), tuple)


@torch.no_grad()
def test_the_modelling_file_saves_and_loads_again(hybrid, tmp_path):
    tokens = torch.arange(1, 13)[None]
    hybrid.save_pretrained(tmp_path)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32, trust_remote_code=True)
    assert again.config.hybrid_block_layout == hybrid.config.hybrid_block_layout
    assert torch.equal(again(tokens).logits, hybrid(tokens).logits)


def test_the_modelling_file_trains(hybrid):
    tokens = torch.arange(1, 13)[None]
    hybrid.train()
    hybrid(tokens, labels=tokens).loss.backward()
    for name, parameter in hybrid.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_a_low_rank_adapter_trains_on_the_modelling_file(hybrid):
    """A step of LoRA through peft, on attention and Mamba projections: the loss falls, and without the adapter nothing has changed."""
    import peft

    torch.manual_seed(2)
    tokens = torch.randint(1, SIZES["vocab_size"], (2, 12))
    before = hybrid(tokens).logits.detach()
    present = {name.rsplit(".", 1)[-1] for name, _ in hybrid.named_modules()}
    targets = sorted(present & {"q_proj", "v_proj", "o_proj", "in_proj", "out_proj", "down_proj"})
    model = peft.get_peft_model(hybrid, peft.LoraConfig(r=4, lora_alpha=8, target_modules=targets, task_type="CAUSAL_LM"))
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained and all("lora_" in name for name in trained)
    optimizer = torch.optim.SGD([parameter for parameter in model.parameters() if parameter.requires_grad], lr=0.05)
    losses = []
    for _ in range(3):
        loss = model(tokens, labels=tokens).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[2] < losses[0], losses
    with model.disable_adapter():
        assert torch.equal(model(tokens).logits, before)
