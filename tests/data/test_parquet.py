"""Parquet files of every kind of record become, byte for byte, the shards that the same records as JSON lines become."""
import json
import os
import pathlib
import random
import subprocess

import pytest

pa = pytest.importorskip("pyarrow")
import pyarrow.parquet as pq  # noqa: E402

MOLT = os.environ.get("MOLT", "build/release/molt")
TEACHER = pathlib.Path(__file__).resolve().parents[2] / "models" / "tiny-teacher"
TEMPLATE = ("{% for message in messages %}{{ message.role }} {{ message.content }}"
            "{% if message.note is defined %} {{ message.note }}{% endif %}{{ eos_token }}{% endfor %}")
WORDS = "tom ann kim has more apples than how many does have 3 12 = + .".split()


def prepare(tokenizer, source, output, *options, code=0):
    command = [MOLT, "prepare", "--input", source, "--tokenizer", tokenizer, "--output", output, *options]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stderr


@pytest.fixture(scope="module", autouse=True)
def reads_parquet(tmp_path_factory):
    folder = tmp_path_factory.mktemp("build")
    pq.write_table(pa.table({"text": ["tom has"]}), folder / "x.parquet")
    done = subprocess.run([MOLT, "prepare", "--input", folder / "x.parquet", "--tokenizer", TEACHER, "--output", folder / "out"],
                          capture_output=True, text=True)
    if "this build of molt cannot read" in done.stderr:
        assert done.returncode == 2 and done.stderr.strip().count("\n") == 0
        pytest.skip("molt was built without Apache Arrow")


@pytest.fixture(scope="module")
def chat_tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chat")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((TEACHER / name).read_bytes())
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


def text(random_):
    return " ".join(random_.choices(WORDS, k=random_.randint(2, 12)))


def records(kind, count=5000):
    r = random.Random(kind)
    for _ in range(count):
        if kind == "text":
            yield {"text": text(r)}
        elif kind == "completion":
            yield {"prompt": text(r), "completion": " " + text(r)}
        elif kind == "tokens":
            tokens = [r.randrange(40) for _ in range(r.randint(2, 9))]
            yield {"tokens": tokens, "learn": [r.randrange(2) for _ in tokens]}
        elif kind == "messages":  # a note is null where a message has none
            turns = [{"role": role, "content": text(r)} | ({"note": text(r)} if r.random() < 0.3 else {})
                     for role in ("user", "assistant") * r.randint(1, 2)]
            yield {"messages": turns}
        else:  # text here, a prompt there
            yield {"text": text(r)} if r.random() < 0.5 else {"prompt": text(r), "completion": text(r)}


def same_shards(a, b):
    names = sorted(path.name for path in a.glob("shard-*"))
    assert names and names == sorted(path.name for path in b.glob("shard-*"))
    for name in names:
        assert (a / name).read_bytes() == (b / name).read_bytes(), name
    counts = [json.loads((folder / "manifest.json").read_text()) for folder in (a, b)]
    assert all(counts[0][key] == counts[1][key] for key in ("samples", "tokens", "loss_tokens", "dropped", "malformed"))


@pytest.mark.parametrize("compression", ["zstd", "snappy"])
@pytest.mark.parametrize("kind", ["text", "completion", "tokens", "messages", "mixed"])
def test_rows_are_what_lines_are(kind, compression, chat_tokenizer, tmp_path):
    rows = list(records(kind))
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    extra = [{"id": i, "other": {"deep": [1.5]}} for i in range(len(rows))]  # columns that nobody asks for
    columns = {key: None for row in rows for key in row}
    table = pa.Table.from_pylist([columns | row | more for row, more in zip(rows, extra, strict=True)])
    pq.write_table(table, tmp_path / "in.parquet", compression=compression, row_group_size=1700)
    options = ["--set", "shard_tokens=20000", "--set", "max_length=16"]
    prepare(chat_tokenizer, tmp_path / "in.jsonl", tmp_path / "lines", *options)
    prepare(chat_tokenizer, tmp_path / "in.parquet", tmp_path / "rows", *options)
    same_shards(tmp_path / "lines", tmp_path / "rows")


@pytest.mark.parametrize("type_", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())])
def test_every_type_of_text(type_, tmp_path):
    texts = [row["text"] for row in records("text", 300)] + ['with "quotes", a \\ and a\nline', "ä € 𝄞"]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    array = pa.array(texts).dictionary_encode() if pa.types.is_dictionary(type_) else pa.array(texts, type_)
    pq.write_table(pa.table({"text": array}), tmp_path / "in.parquet")
    for name in ("jsonl", "parquet"):
        prepare(TEACHER, tmp_path / f"in.{name}", tmp_path / name)
    same_shards(tmp_path / "jsonl", tmp_path / "parquet")


def test_what_is_wrong_is_said_in_one_line(tmp_path):
    def error(table, *options):
        if table is not None:
            pq.write_table(table, tmp_path / "in.parquet")
        message = prepare(TEACHER, tmp_path / "in.parquet", tmp_path / "out", *options, code=2).strip()
        assert message.count("\n") == 0, message
        return message

    assert "found the columns a, b, expected one of text, prompt, " in error(pa.table({"a": [1], "b": [2]}))
    assert "in.parquet:1: found timestamp[us], expected text, " in error(pa.table({"text": pa.array([0], pa.timestamp("us"))}))
    assert "in.parquet:3: text: found 7" in error(pa.table({"tokens": [[1, 2], [3, 4], None], "text": pa.array([None, None, 7])}))
    assert "in.parquet:2" in error(pa.table({"tokens": [[1, 2], [3, 9999]]}))
    pq.write_table(pa.table({"text": ["tom has 3 apples"] * 1000}), tmp_path / "in.parquet")
    whole = (tmp_path / "in.parquet").read_bytes()
    (tmp_path / "in.parquet").write_bytes(whole[: len(whole) // 2])
    assert "in.parquet: cannot read the Parquet data: " in error(None)
    assert "1 malformed" in prepare(TEACHER, write(tmp_path, [["tom has"], [None]]), tmp_path / "out", "--set", "max_malformed=1")


def write(folder, texts):
    pq.write_table(pa.table({"text": [text for [text] in texts], "id": list(range(len(texts)))}), folder / "some.parquet")
    return folder / "some.parquet"
