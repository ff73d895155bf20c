"""The tokenizer against Hugging Face `tokenizers`: real text, random Unicode, random ids, streaming.

Cases are written to folders with what `tokenizers` gives; the C++ test Parity.AgreesWithTokenizers checks them (its file says
what a folder holds). MOLT names the program `molt`, beside which molt_text_tests lies; MOLT_SHARED the folder that has data/.
"""

import json
import os
import random
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

SHARED = Path(os.environ.get("MOLT_SHARED", "/nowhere"))
TESTS = Path(os.environ.get("MOLT", "/nowhere")).parent / "molt_text_tests"
pytestmark = pytest.mark.skipif(not TESTS.exists(), reason="molt_text_tests is not built")

LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_WORDS = LLAMA3_WORDS.replace(r"\p{N}{1,3}", r"\p{N}")
TEKKEN_WORDS = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SAMPLE = [
    "Once upon a time there was a little girl. She didn't like 1234 apples, but he'd eaten 56!\n\n  Then:\n\tx = y + 3.14;\r\n",
    "Ünïcödé façade, naïve café; 你好世界 こんにちは 안녕하세요 Привет мир שלום 🙂👩‍👩‍👧 ½ ² ﬁ\u00a0\u2003end",
    "The quick brown fox jumps over the lazy dog. THE QUICK BROWN FOX'S I'LL WE'RE  three   spaces    four",
] * 20


def train(tokenizer, **options):
    alphabet = pre_tokenizers.ByteLevel.alphabet() if options.pop("bytes", True) else []
    trainer = trainers.BpeTrainer(
        vocab_size=800, special_tokens=["<unk>", "<s>", "</s>"], initial_alphabet=alphabet, show_progress=False, **options
    )
    tokenizer.train_from_iterator(corpus()[:600] + SAMPLE, trainer)
    return tokenizer


def corpus():
    """All the text of the shared data; a little of our own where it is absent."""
    texts = []
    for path in sorted((SHARED / "data").rglob("*")):
        if path.suffix == ".jsonl":
            texts += [text for line in path.open() for text in strings(json.loads(line))]
        elif path.suffix in (".txt", ".md"):
            lines = path.read_text().splitlines(keepends=True)
            texts += ["".join(lines[i : i + 50]) for i in range(0, len(lines), 50)]
    return texts + SAMPLE[:3]


def strings(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from strings(part)


def byte_level(words=None, prefix=False, normalizer=None, ignore_merges=False):
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    if normalizer:
        tokenizer.normalizer = normalizer
    spell = pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=words is None)
    if words:
        spell = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(words), "isolated"), spell])
    tokenizer.pre_tokenizer = spell
    tokenizer.decoder = decoders.ByteLevel()
    return train(tokenizer)


def gpt2():
    tokenizer = byte_level()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    return tokenizer


def llama3():
    tokenizer = byte_level(LLAMA3_WORDS, ignore_merges=True)
    tokenizer.add_special_tokens(["<|begin|>", "<|end|>"])
    begin = tokenizer.token_to_id("<|begin|>")
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(single="<|begin|> $A", pair="<|begin|> $A $B", special_tokens=[("<|begin|>", begin)]),
        ]
    )
    return tokenizer


def qwen():
    tokenizer = byte_level(QWEN_WORDS, normalizer=normalizers.NFC())
    tokenizer.add_tokens(
        [
            AddedToken("<tool>", normalized=False, special=False),
            AddedToken("<left>", lstrip=True, normalized=False),
            AddedToken("<right>", rstrip=True, normalized=False),
            AddedToken("word", single_word=True, normalized=True),
        ]
    )
    return tokenizer


def sentencepiece(pre_tokenizer=None, **options):
    """The shape of Llama 2 and Mistral; bytes for what has no token."""
    marks = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, **options))
    # Trained on words, since on whole texts it would learn merges across them.
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    train(tokenizer, bytes=False, limit_alphabet=90)
    tree = json.loads(tokenizer.to_str())
    if options.get("byte_fallback"):
        for byte in range(256):
            tree["model"]["vocab"][f"<0x{byte:02X}>"] = len(tree["model"]["vocab"])
    for token in "▁▁", "▁▁▁▁":
        tree["model"]["vocab"].setdefault(token, len(tree["model"]["vocab"]))
    tree["model"]["merges"] += [["▁", "▁"], ["▁▁", "▁▁"]]
    tree["pre_tokenizer"] = None
    tokenizer = Tokenizer.from_str(json.dumps(tree))
    if pre_tokenizer:
        tokenizer.pre_tokenizer = pre_tokenizer
        tokenizer.decoder = decoders.Metaspace(prepend_scheme=pre_tokenizer.prepend_scheme)
    else:
        tokenizer.normalizer = marks
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)])
    return tokenizer


def word_level():
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Lowercase(), normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.Punctuation()]
    )
    tokenizer.train_from_iterator(SAMPLE, trainers.WordLevelTrainer(special_tokens=["<unk>"], show_progress=False))
    return tokenizer


def unigram(byte_fallback=False, normalizer=None, pre_tokenizer=None):
    """The shape of SentencePiece's unigram models."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=700, special_tokens=["<unk>", "<s>", "</s>"], unk_token="<unk>", show_progress=False, max_piece_length=12
    )
    tokenizer.train_from_iterator(corpus()[:300] + SAMPLE, trainer)
    tree = json.loads(tokenizer.to_str())
    vocab = tree["model"]["vocab"]
    lowest = min(score for _, score in vocab)
    if byte_fallback:
        vocab += [[f"<0x{byte:02X}>", lowest - 1] for byte in range(256)]
        tree["model"]["byte_fallback"] = True
    vocab += [["▁▁", lowest + 2], ["the", lowest], ["ß", lowest]]  # the second one stands for an earlier one of its kind
    tokenizer = Tokenizer.from_str(json.dumps(tree))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    last = decoders.Metaspace() if pre_tokenizer else decoders.Replace("▁", " ")
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), last, decoders.Fuse()])
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", pair="$A $B </s>", special_tokens=[("</s>", 2)])
    return tokenizer


def charsmap(replacements):
    """SentencePiece's table of replacements, a double array trie in which every node has a block of 256 units for its children."""
    children, texts = {b"": set()}, b""
    for key in replacements:
        for end in range(len(key.encode())):
            children.setdefault(key.encode()[: end + 1], set())
            children[key.encode()[:end]].add(key.encode()[: end + 1])
    base = {node: 256 * (number + 1) for number, node in enumerate(children)}
    units = [0] * 256 * (len(children) + 1)
    units[0] = base[b""] << 10
    for node, below in children.items():
        for child in below:
            place = base[node] ^ child[-1]
            units[place] = (place ^ base[child]) << 10 | child[-1]
    for key, text in replacements.items():
        key = key.encode()
        units[base[key[:-1]] ^ key[-1]] |= 1 << 8
        units[base[key]] = 1 << 31 | len(texts)
        texts += text.encode() + b"\0"
    return struct.pack(f"<I{len(units)}I", 4 * len(units), *units) + texts


def precompiled():
    """Letters and ligatures, longer text for one character, none for another, accents that join letters and such that stay."""
    replacements = {"ﬁ": "fi", "½": "1/2", "\t": " ", "\u00a0": " ", "\u200b": "", "e\u0301": "é", "E": "e", "Ａ": "A", "你": "您",
                    "\r\n": " ", "🙂": ":)", "안": "ab", "K": "K", "ſt": "st", "ſ": "s", "\u1100": "g"}
    return normalizers.Sequence([normalizers.Precompiled(charsmap(replacements)), normalizers.Replace(Regex(" {2,}"), " ")])


def stories():
    return Tokenizer.from_file(str(SHARED / "data/stories260k/tokenizer.json"))


def all_tokenizers():
    made = {
        "gpt2": gpt2(),
        "gpt2-prefix": byte_level(prefix=True),
        "llama3": llama3(),
        "qwen": qwen(),
        "tekken": byte_level(TEKKEN_WORDS, ignore_merges=True),
        "llama2": sentencepiece(byte_fallback=True),
        "mistral": sentencepiece(pre_tokenizers.Metaspace(prepend_scheme="first", split=False), byte_fallback=True),
        "metaspace": sentencepiece(pre_tokenizers.Metaspace(prepend_scheme="always")),
        "unigram": unigram(pre_tokenizer=pre_tokenizers.Metaspace()),
        "unigram-bytes": unigram(byte_fallback=True, normalizer=normalizers.Replace(" ", "▁")),
        "unigram-plain": unigram(
            normalizer=normalizers.Sequence([normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()]),
            pre_tokenizer=pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]),
        ),
        "unigram-precompiled": unigram(normalizer=precompiled(), pre_tokenizer=pre_tokenizers.Metaspace()),
        "word-level": word_level(),
    }
    if (SHARED / "data/stories260k").exists():
        made["stories260k"] = stories()
    return made


@pytest.fixture(scope="module")
def tokenizers():
    return all_tokenizers()


def write_lines(path, lines):
    path.write_text("".join(line + "\n" for line in lines))


def write_case(folder, tokenizer, texts, id_lists, files={}):
    """`files` are those that transformers reads beside tokenizer.json; with some, what it makes of the folder is expected."""
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    if files:
        from transformers import AutoTokenizer

        for name, content in files.items():
            (folder / name).write_text(json.dumps(content))
        tokenizer = AutoTokenizer.from_pretrained(folder).backend_tokenizer
    encoded = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
    write_lines(folder / "texts.jsonl", map(json.dumps, texts))
    write_lines(folder / "ids.txt", (" ".join(map(str, ids)) for ids in encoded))
    write_lines(folder / "decoded.jsonl", map(json.dumps, tokenizer.decode_batch(encoded)))
    write_lines(folder / "random_ids.txt", (" ".join(map(str, ids)) for ids in id_lists))
    write_lines(folder / "random_decoded.jsonl", map(json.dumps, tokenizer.decode_batch(id_lists, skip_special_tokens=False)))


def run(test, **environment):
    done = subprocess.run(
        [TESTS, f"--gtest_filter=Parity.{test}"], env=os.environ | environment, capture_output=True, text=True, timeout=120
    )
    ran = "1 test from 1 test suite ran" in done.stdout and "SKIPPED" not in done.stdout
    assert done.returncode == 0 and ran, done.stdout[-4000:]


def check(folder, tokenizers, texts, id_lists):
    """`texts` and `id_lists` are functions of a tokenizer's name and of the tokenizer."""
    for name, tokenizer in tokenizers.items():
        write_case(folder / name, tokenizer, texts(name), id_lists(tokenizer))
    run("AgreesWithTokenizers", MOLT_TEXT_CASES=str(folder))


def random_ids(tokenizer, seed=0, lists=300):
    generator = random.Random(seed)
    size = tokenizer.get_vocab_size()
    return [[generator.randrange(size) for _ in range(generator.randrange(1, 30))] for _ in range(lists)]


def test_all_shared_text(tokenizers, tmp_path):
    """All of it by stories260k's tokenizer; the others share a quarter of it (all with MOLT_ALL_TEXT: minutes)."""
    texts = corpus()
    names = list(tokenizers)

    def share(name):
        whole = name == "stories260k" or "MOLT_ALL_TEXT" in os.environ
        return texts if whole else texts[names.index(name) :: 4 * (len(names) - 1)]

    check(tmp_path, tokenizers, share, random_ids)


# Unassigned code points differ between the versions of Unicode that the libraries know.
characters = st.characters(exclude_categories=["Cs", "Cn"])
spaces_and_signs = st.sampled_from(list(" \n\r\t.,'1▁é") + ["  ", "'s", "'LL", "é", "\u00a0", "\u0301", "\u200d", "ſ", "K"])
marks = st.sampled_from(["<s>", "</s>", "<unk>", "<tool>", "<left>", "<right>", "word", " word ", "<0x41>", "<|end|>", "<"])
random_text = st.lists(st.one_of(characters, spaces_and_signs, marks, st.sampled_from(SAMPLE)), max_size=40).map("".join)


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
@given(texts=st.lists(random_text, min_size=30, max_size=60), seed=st.integers(0, 2**32))
def test_random_unicode(tokenizers, tmp_path_factory, texts, seed):
    check(tmp_path_factory.mktemp("random"), tokenizers, lambda name: texts, lambda tokenizer: random_ids(tokenizer, seed, 20))


def added(content, **flags):
    defaults = dict(lstrip=False, rstrip=False, single_word=False, normalized=False, special=True)
    return {"content": content, **defaults, **flags}


CLASS = {"tokenizer_class": "PreTrainedTokenizerFast"}
# Files that describe tokens beside tokenizer.json, in which "<s>" is special, "<tool>" is not and "word" stands alone.
TOKEN_FILES = {
    "named": {"tokenizer_config.json": CLASS | {"eos_token": "<new>", "pad_token": "</s>", "image_token": "<image>"}},
    "unnamed": {"tokenizer_config.json": CLASS | {"additional_special_tokens": ["<new>", added("<image>", rstrip=True) | {"__type": "AddedToken"}, "<s>"]}},
    "extra": {"tokenizer_config.json": CLASS | {"extra_special_tokens": {"image_token": "<image>", "new_token": "<new>"}}},
    "decoder": {
        "tokenizer_config.json": CLASS
        | {
            "eos_token": "<new>",
            "added_tokens_decoder": {
                "9001": added("<new>", special=False),
                "9000": added("<image>", normalized=True, lstrip=True),
                "1": added("<s>", rstrip=True),
                "2": added("</s>", normalized=True),
                "3": added("word", special=False),
            },
        }
    },
    "early": {
        "tokenizer_config.json": CLASS | {"eos_token": "</s>"},
        "special_tokens_map.json": {"eos_token": added("<new>"), "pad_token": "<s>"},
        "added_tokens.json": {"<image>": 9000, "word": 3},
    },
}


@pytest.mark.parametrize("files", TOKEN_FILES)
def test_tokens_of_other_files(files, tokenizers, tmp_path):
    pieces = ["<s>", "</s>", "<new>", "<image>", "<tool>", "word", "words", " ", "  ", "a", "é", "\n"]
    generator = random.Random(files)
    texts = ["".join(generator.choices(pieces, k=8)) for _ in range(100)]
    for name in ("qwen", "llama2", "mistral", "unigram"):
        write_case(tmp_path / name, tokenizers[name], texts, random_ids(tokenizers[name], lists=30), TOKEN_FILES[files])
    run("AgreesWithTokenizers", MOLT_TEXT_CASES=str(tmp_path))


def test_word_tokenizer_loads_elsewhere(tmp_path):
    run("WritesAWordTokenizer", MOLT_TEXT_WORDS=str(tmp_path))
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    texts = ["tom = 3 + 1 4 .", "tom has 14 apples.", "tom don't\nhas (été)  3", " tom", "", "who?\t"]
    (tmp_path / "cases").mkdir()
    check(tmp_path / "cases", {"words": tokenizer}, lambda name: texts, random_ids)
    for text in texts[:3]:
        assert tokenizer.decode(tokenizer.encode(text).ids) == text

    from transformers import AutoTokenizer

    auto = AutoTokenizer.from_pretrained(tmp_path)
    assert auto.encode(texts[1]) == tokenizer.encode(texts[1]).ids
    assert auto.decode(auto.encode(texts[1]), skip_special_tokens=True) == texts[1]
    assert (auto.pad_token_id, auto.bos_token_id, auto.eos_token_id, auto.unk_token_id) == (0, 1, 2, 3)
