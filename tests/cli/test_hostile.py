"""Broken and hostile model folders: one line that names the file and what is wrong in it, exit code 2, and little memory."""

import json
import os
import pathlib
import shutil
import struct

import pytest

MOLT = os.path.abspath(os.environ.get("MOLT", "build/release/molt"))
TEACHER = pathlib.Path(__file__).parents[2] / "models/tiny-teacher"
pytestmark = pytest.mark.skipif(not pathlib.Path(MOLT).exists(), reason=f"{MOLT} is not built")

CONFIG = json.loads((TEACHER / "config.json").read_text())
WEIGHTS = (TEACHER / "model.safetensors").read_bytes()
DATA_START = 8 + struct.unpack("<Q", WEIGHTS[:8])[0]
HEADER = json.loads(WEIGHTS[8:DATA_START])
NAMES = sorted((name for name in HEADER if name != "__metadata__"), key=lambda name: HEADER[name]["data_offsets"])
FIRST, SECOND, LAST = NAMES[0], NAMES[1], NAMES[-1]
DEEP = "[" * 1_000_000


def with_header(header, data=WEIGHTS[DATA_START:]):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def changed(name, **fields):
    """The weights with other fields of a tensor in their header."""
    return with_header(HEADER | {name: HEADER[name] | fields})


def config(**keys):
    return json.dumps(CONFIG | keys)


def raw(key, value):
    """config.json with a value that Python's json would not write so."""
    return config(**{key: "VALUE"}).replace('"VALUE"', value)


def index(shard, names=NAMES):
    return json.dumps({"weight_map": {name: shard for name in names}})


def letters(last, **ssm):
    layout = ["t"] * (CONFIG["num_hidden_layers"] - 1) + [last]
    kind = {"model_type": "apriel_hybrid_ssm", "architectures": ["AprielHybridSSMForCausalLM"]}
    return config(**kind, hybrid_block_layout=layout, ssm_cfg={"d_state": 16, "d_inner": 128, "d_xb": 64} | ssm)


SHAPE = HEADER[LAST]["shape"]
BEGIN = HEADER[LAST]["data_offsets"][0]
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:" + 64 * "0" + "\nsize 123\n"
# What is wrong; the file and what to write there; a part of the message.
WEIGHT_CASES = {
    "empty": (b"", "found 0 bytes"),
    "cut in the header": (WEIGHTS[:100], "is the file truncated?"),
    "cut in the data": (WEIGHTS[: len(WEIGHTS) // 2], "is it truncated?"),
    "header of 2^60 bytes": (struct.pack("<Q", 1 << 60) + b"{}", "found a header of 1152921504606846976 bytes"),
    "deep header": (with_header(DEEP.encode()), "found an array, expected an object of tensors"),
    "deep tensor": (with_header(b'{"a":' + DEEP.encode()), "a: found an array"),
    "overlapping": (changed(SECOND, data_offsets=HEADER[FIRST]["data_offsets"], shape=HEADER[FIRST]["shape"]), "data begins at byte 0"),
    "unknown type": (changed(FIRST, dtype="Q4"), f'{FIRST}: found dtype "Q4"'),
    "wrong type": (changed(FIRST, dtype={4: "I32", 2: "I16"}[4 if HEADER[FIRST]["dtype"] == "F32" else 2]), f"{FIRST}: found dtype I"),
    "wrong shape": (changed(LAST, shape=SHAPE[::-1] + [1]), f"{LAST}: found shape"),
    "overflowing shape": (changed(LAST, shape=[1 << 32, 1 << 32, 4]), "more than 2^63"),
    "beyond the end": (changed(LAST, shape=[1 << 40], dtype="U8", data_offsets=[BEGIN, BEGIN + (1 << 40)]), "is it truncated?"),
    "missing": (with_header({name: HEADER[name] for name in NAMES[:-1]}, WEIGHTS[DATA_START : DATA_START + BEGIN]), f"no tensor {LAST}"),
    "not fetched": (LFS.encode(), "found a pointer of git-lfs, expected the file itself"),
    "extra": (with_header(HEADER | {"extra": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}), "found tensor extra"),
}
INDEX_CASES = {
    "missing shard": (index("absent.safetensors"), "names absent.safetensors, which is not in the folder"),
    "shard elsewhere": (index("../../etc/passwd"), 'found "../../etc/passwd", expected the name of a file in the same folder'),
    "absolute shard": (index("/etc/passwd"), 'found "/etc/passwd"'),
    "unlisted": (index("a.safetensors", NAMES[1:]), f"found tensor {FIRST}, which model.safetensors.index.json does not list"),
    "not held": (index("a.safetensors", NAMES + ["extra"]), "found no tensor extra"),
    "no map": ('{"weight_map": []}', "expected an object of tensor names and shards"),
    "deep index": (DEEP, "nested deeper than 256 levels"),
}
CONFIG_CASES = {
    "cut": (config()[:50], "config.json:1:"),
    "not fetched": (LFS, "found a pointer of git-lfs, expected the file itself"),
    "deep config": (DEEP, "nested deeper than 256 levels"),
    "deep value": (raw("rope_scaling", DEEP), "nested deeper than 256 levels"),
    "no number": (raw("hidden_size", "NaN"), "config.json:1:"),
    "too large a number": (raw("rope_theta", "1e999"), "1e999"),
    "negative size": (config(hidden_size=-128), "hidden_size: found -128, expected 1 to 16777216"),
    "negative heads": (config(num_attention_heads=-4), "num_attention_heads: found -4"),
    "many layers": (config(num_hidden_layers=1 << 60), "num_hidden_layers: found 1152921504606846976, expected 0 to 10000"),
    "more layers than tensors": (config(num_hidden_layers=1_000), "found no tensor model.layers.12."),
    "text for a size": (config(hidden_size="big"), 'hidden_size: found "big", expected a whole number'),
    "unknown family": (config(model_type="gpt2"), 'model_type: found "gpt2", expected one of mistral, llama'),
    "lines in a name": (config(model_type="a\nb\x1b[2J"), 'model_type: found "a\\nb\\x1b[2J"'),
    "quantised": (config(quantization_config={"bits": 4}), "quantization_config"),
    "gdn": (letters("gdn"), 'unknown mixer letter "gdn"'),
    "kl": (letters("kl"), 'unknown mixer letter "kl"'),
    "m2d": (letters("m2d"), 'unknown mixer letter "m2d"'),
    "negative state": (letters("m2", d_state=-16), "ssm_cfg: d_state: found -16"),
}


def run(folder, *arguments):
    """Exit code, messages and most resident memory of molt."""
    with open(folder / "messages", "w") as messages, open(os.devnull, "w") as nowhere:
        actions = [(os.POSIX_SPAWN_DUP2, nowhere.fileno(), 1), (os.POSIX_SPAWN_DUP2, messages.fileno(), 2)]
        process = os.posix_spawn(MOLT, [MOLT, *map(str, arguments)], os.environ, file_actions=actions)
        _, status, usage = os.wait4(process, 0)
    return os.waitstatus_to_exitcode(status), (folder / "messages").read_text(), usage.ru_maxrss * 1024


@pytest.fixture(scope="module")
def resident(tmp_path_factory):
    """What the program needs to look at the same folder when nothing is broken."""
    code, messages, memory = run(tmp_path_factory.mktemp("good"), "inspect", TEACHER)
    assert code == 0, messages
    return memory


def check(folder, resident, command, place, expected):
    code, messages, memory = run(folder, *command)
    assert code == 2, messages
    assert len(messages.splitlines()) == 1 and len(messages) < 500, messages[:2000]
    assert str(folder / "model" / place) in messages and expected in messages, messages
    assert memory < resident + (32 << 20), (memory, resident)


def broken(tmp_path, name, content):
    model = tmp_path / "model"
    shutil.copytree(TEACHER, model)
    (model / name).unlink(missing_ok=True)
    (model / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return model


@pytest.mark.parametrize("case", WEIGHT_CASES)
def test_weights(tmp_path, resident, case):
    content, expected = WEIGHT_CASES[case]
    check(tmp_path, resident, ["inspect", broken(tmp_path, "model.safetensors", content)], "model.safetensors", expected)


@pytest.mark.parametrize("case", INDEX_CASES)
def test_shards(tmp_path, resident, case):
    content, expected = INDEX_CASES[case]
    model = broken(tmp_path, "model.safetensors.index.json", content)
    (model / "model.safetensors").rename(model / "a.safetensors")
    check(tmp_path, resident, ["inspect", model], "", expected)


@pytest.mark.parametrize("case", CONFIG_CASES)
def test_configs(tmp_path, resident, case):
    content, expected = CONFIG_CASES[case]
    check(tmp_path, resident, ["inspect", broken(tmp_path, "config.json", content)], "", expected)


@pytest.mark.parametrize("options", ["convert --layers 1 --output made", "generate --prompt tom --device cpu"])
def test_other_commands_say_the_same(tmp_path, resident, options, monkeypatch):
    monkeypatch.chdir(tmp_path)
    word, *options = options.split()
    model = broken(tmp_path, "model.safetensors", WEIGHT_CASES["beyond the end"][0])
    check(tmp_path, resident, [word, model, *options], "model.safetensors", "is it truncated?")
    assert not (tmp_path / "made").exists()
