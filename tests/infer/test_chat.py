"""`molt generate` and `molt chat` on a model with a chat template against transformers: the same prompt tokens, the same answers."""

import json
import os
import pathlib
import subprocess

import pytest
import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models

MOLT = os.environ.get("MOLT", "build/release/molt")
pytestmark = pytest.mark.skipif(not pathlib.Path(MOLT).exists(), reason=f"{MOLT} is not built")

LETTERS = list("abcdefghijklmnopqrstuvwxyz .\n")
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m.role not in ['user', 'assistant'] %}{{ raise_exception('no ' + m.role) }}{% endif %}"
    "<|{{ m.role }}|>{{ m.content | trim }}<|end|>{% endfor %}{% if tools %}{{ tools[0].name }}{% endif %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}{% if mark is defined %}{{ mark }}{% endif %}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random model, a tokenizer of single letters with special tokens, and a template that writes them."""
    folder = tmp_path_factory.mktemp("model")
    special = ["<s>", "<|user|>", "<|assistant|>", "<|end|>"]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(special + LETTERS)}, []))
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.decoder = decoders.Fuse()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "<|end|>", "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    torch.manual_seed(3)
    config = transformers.LlamaConfig(
        hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=2, vocab_size=40,
        max_position_embeddings=512, initializer_range=0.2, eos_token_id=3, bos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).eval().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def reference(folder):
    """messages → the answer, special tokens left out, as transformers generates it greedily."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)

    def answer(messages, max_tokens=12, **variables):
        prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False, **variables)
        with torch.no_grad():
            ids = torch.tensor([prompt])
            whole = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=max_tokens, do_sample=False)
            tokens = whole[0, len(prompt) :]
        return tokenizer.decode(tokens, skip_special_tokens=True)

    return answer


def generate(folder, lines, tmp_path, code=0):
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = [MOLT, "generate", folder, "--input", tmp_path / "in.jsonl", "--output", tmp_path / "out.jsonl", "--max-tokens", "12"]
    done = subprocess.run([*map(str, command), "--threads", "1"], capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return done.stderr if code else [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]


def test_messages_are_answered_as_transformers_does(folder, reference, tmp_path):
    user, assistant = {"role": "user", "content": " hello there. "}, {"role": "assistant", "content": "yes"}
    cases = [
        ([user], {}),
        ([user, assistant, {"role": "user", "content": "and now"}], {}),
        ([user], {"tools": [{"name": "clock"}]}),
        ([user], {"mark": "so"}),
    ]
    lines = []
    for messages, variables in cases:
        tools = {"tools": variables["tools"]} if "tools" in variables else {}
        others = {key: value for key, value in variables.items() if key != "tools"}
        lines.append({"messages": messages, **tools, **({"chat_template_kwargs": others} if others else {})})
    written = generate(folder, lines, tmp_path)
    answers = [line["completion"] for line in written]
    assert answers == [reference(messages, **variables) for messages, variables in cases]
    assert len(set(answers)) > 1
    assert generate(folder, lines, tmp_path) == written  # continued: nothing is left to do


def test_mistakes_are_one_line(folder, tmp_path):
    found = generate(folder, [{"messages": [{"role": "critic", "content": "x"}]}], tmp_path, code=2)
    assert "in.jsonl:1: " in found and "the template refuses its input: no critic" in found and found.count("\n") == 1
    plain = tmp_path / "plain"
    plain.mkdir()
    for path in folder.iterdir():
        if path.name != "tokenizer_config.json":
            (plain / path.name).write_bytes(path.read_bytes())
    found = generate(plain, [{"messages": [{"role": "user", "content": "x"}]}], tmp_path, code=2)
    assert "in.jsonl:1: messages: the model's folder has no chat template" in found


def test_chat_lays_out_the_conversation(folder, reference):
    typed = "hello\nand you\n/reset\nhello\n/help\n"
    command = [MOLT, "chat", str(folder), "--temperature", "0", "--max-tokens", "12", "--threads", "1"]
    done = subprocess.run(command, input=typed, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "chat template lays out" in done.stderr
    first = reference([{"role": "user", "content": "hello"}])
    turns = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": first}, {"role": "user", "content": "and you"}]
    assert done.stdout == "".join(text + "\n" for text in (first, reference(turns), first))
