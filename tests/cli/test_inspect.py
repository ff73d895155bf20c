"""molt inspect as a user calls it, and a folder of Apriel's 15B shape: 30 GB that are opened without being read."""
import json
import os
import pathlib
import struct
import subprocess
import time

MOLT = os.environ.get("MOLT", "build/release/molt")
ROOT = pathlib.Path(__file__).resolve().parents[2]
APRIEL = {
    "architectures": ["MistralForCausalLM"], "model_type": "mistral", "hidden_size": 5120, "intermediate_size": 14336,
    "num_hidden_layers": 50, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 131072,
    "rms_norm_eps": 1e-05, "max_position_embeddings": 65536, "rope_theta": 1000000.0, "sliding_window": None,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}


def molt(*arguments, code=0):
    done = subprocess.run([MOLT, *map(str, arguments)], capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def shapes(config):
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    queries, keys = config["num_attention_heads"] * config["head_dim"], config["num_key_value_heads"] * config["head_dim"]
    layer = {"input_layernorm": (hidden,), "mlp.down_proj": (hidden, inner), "mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden),
             "post_attention_layernorm": (hidden,), "self_attn.k_proj": (keys, hidden), "self_attn.o_proj": (hidden, queries),
             "self_attn.q_proj": (queries, hidden), "self_attn.v_proj": (keys, hidden)}
    yield "lm_head.weight", (config["vocab_size"], hidden)
    yield "model.embed_tokens.weight", (config["vocab_size"], hidden)
    for i in range(config["num_hidden_layers"]):
        for name, shape in layer.items():
            yield f"model.layers.{i}.{name}.weight", shape
    yield "model.norm.weight", (hidden,)


def write_sparse(folder, config):
    """A folder with the tensors in the order in which transformers writes them, all zero, that takes no disk."""
    (folder / "config.json").write_text(json.dumps(config))
    header, position = {}, 0
    for name, shape in shapes(config):
        size = 2
        for dimension in shape:
            size *= dimension
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [position, position + size]}
        position += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + position)


def inspect(*arguments):
    return json.loads(molt("inspect", *arguments, "--json").stdout)


def test_a_config_alone_tells_what_apriels_shape_costs(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(APRIEL))
    found = inspect(tmp_path, "--mamba", "30,40", "--context", "16384")
    teacher, h30, h40 = found["variants"]
    assert abs(teacher["parameters"] - 14.97e9) < 0.01e9
    assert teacher["cache_bytes_per_token"] == 204800
    assert h30["cache_bytes_per_token"] == 204800 * 20 // 50
    assert teacher["decode"][0]["speed_up"] == 1 and teacher["decode"][0]["bound"] == "weights"
    assert 1 < h30["decode"][1]["speed_up"] < h40["decode"][1]["speed_up"]
    assert h30["largest_batch"] > teacher["largest_batch"]

    text = molt("inspect", tmp_path, "--mamba", "30").stdout
    for expected in ("14.974 B", "204,800 B", "a" * 50, "a" * 20 + "M" * 30, "layers.*.mlp.gate_up.weight", "3350 GB/s"):
        assert expected in text, text


def test_mistakes(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(APRIEL | {"torch_dtype": "int8"}))
    assert 'dtype: found "int8", expected float32' in molt("inspect", tmp_path, code=2).stderr
    assert "--mamba: found 51, expected 0 to 50" in molt("inspect", tmp_path, "--mamba", "51", "--dtype", "bfloat16", code=2).stderr
    assert "--memory: found -1" in molt("inspect", tmp_path, "--memory", "-1", code=2).stderr


def rows(text):
    """(position, id, weight, token) of each token that --batch shows."""
    return [line.split(None, 3) for line in text.splitlines() if line[0] == " "]


def test_a_batch_is_shown_with_its_loss_weights(tmp_path):
    teacher = ROOT / "models" / "tiny-teacher"
    (tmp_path / "in.jsonl").write_text(json.dumps({"prompt": "tom has 3 apples .", "completion": " answer : 3"}) + "\n")
    prepared = molt("prepare", "--input", tmp_path / "in.jsonl", "--tokenizer", teacher, "--output", tmp_path / "shards")
    assert "1 sample, 10 tokens (4 to learn from)" in prepared.stderr
    shown = molt("inspect", teacher, "--batch", tmp_path / "shards").stdout  # the one sample, until the batch is full
    first = shown[:shown.index("sequence 1:")]
    assert first.startswith("sequence 0: 10 tokens, 4 learned\n"), first
    words = {weight: [token.lstrip("▁") for _, _, own, token in rows(first) if own == weight] for weight in ("0", "1")}
    assert words == {"0": ["<s>", "tom", "has", "3", "apples", "."], "1": ["answer", ":", "3", "</s>"]}


def test_the_batch_of_a_step_is_the_one_that_is_trained_on(tmp_path):
    """A run whose second step breaks saves that step's batches, which are those that the configuration shows."""
    teacher = ROOT / "models" / "tiny-teacher"
    config = tmp_path / "train.yaml"
    config.write_text(f"""
model: {{pretrained: {{path: {teacher}}}}}
data: {{synthetic: {{seed: 5}}}}
training: {{steps: 4, micro_batch_tokens: 150, micro_batches: 2, schedule: {{warmup: 0, type: constant}}, optimizer: {{learning_rate: 1e30}}}}
device: cpu
output: {tmp_path / "run"}
""")
    molt("train", config, code=2)
    saved = molt("inspect", teacher, "--batch", tmp_path / "run" / "nonfinite_step_2.safetensors").stdout
    assert saved.count("micro-batch") == 2 and len(rows(saved)) > 150
    assert saved == molt("inspect", teacher, "--batch", config, "--step", "2").stdout
    assert saved != molt("inspect", teacher, "--batch", config).stdout
    assert "expected the batches of a step" in molt("inspect", teacher, "--batch", teacher / "model.safetensors", code=2).stderr


def test_the_shipped_teacher():
    found = inspect(ROOT / "models" / "tiny-teacher")
    assert found["dtype"] == "bfloat16" or found["dtype"] == "float32"
    assert found["variants"][0]["layout"] == ["t"] * 12


def test_a_folder_of_30_gb_opens_within_a_second(tmp_path):
    write_sparse(tmp_path, APRIEL)
    assert (tmp_path / "model.safetensors").stat().st_size > 29.9e9
    molt("inspect", tmp_path, "--json")  # so that the program and its libraries are in memory
    seconds = []
    for _ in range(3):
        start = time.monotonic()
        inspect(tmp_path)
        seconds.append(time.monotonic() - start)
    start = time.monotonic()
    molt("config", "train")
    startup = time.monotonic() - start
    assert min(seconds) - startup < 1, (seconds, startup)


def anonymous_memory(*arguments):
    """The most anonymous memory that a run of molt has, in bytes."""
    process = subprocess.Popen([MOLT, *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    peak = 0
    while process.poll() is None:
        try:
            lines = pathlib.Path(f"/proc/{process.pid}/status").read_text().splitlines()
        except OSError:
            break
        peak = max([peak] + [int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")])
        time.sleep(0.001)
    message = process.communicate()[1]
    assert process.returncode == 0, message
    return peak, message


def test_conversion_holds_one_layers_mixer_and_nothing_else(tmp_path):
    source, target = tmp_path / "source", tmp_path / "converted"
    source.mkdir()
    write_sparse(source, APRIEL | {"num_hidden_layers": 6, "hidden_size": 1024, "intermediate_size": 8192, "vocab_size": 32000,
                                   "num_attention_heads": 8, "num_key_value_heads": 2})
    weights = (source / "model.safetensors").stat().st_size
    assert weights > 4e8
    before, _ = anonymous_memory("inspect", source)
    peak, message = anonymous_memory("convert", source, "--layers", "1,3,4", "--shard-size", "0.1", "--output", target)
    assert "of disk" in message, message
    assert peak - before < weights / 4, (peak, before)
    assert len(list(target.glob("model-*.safetensors"))) > 3
    assert inspect(target)["variants"][0]["layout"] == ["t", "m2", "t", "m2", "m2", "t"]
