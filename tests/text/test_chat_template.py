"""Chat templates against transformers: whole templates in each family's style, and expressions that hypothesis makes up.

Cases go to the C++ test ChatTemplateParity.RendersCases, whose results are compared here. MOLT names the program `molt`, beside
which molt_text_tests lies. Both sides must agree on the text, on what {% generation %} covers, and on which inputs are refused.
"""

import json
import os
import random
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers.utils.chat_template_utils import render_jinja_template

TESTS = Path(os.environ.get("MOLT_TEXT_TESTS", Path(os.environ.get("MOLT", "/nowhere")).parent / "molt_text_tests"))
pytestmark = pytest.mark.skipif(not TESTS.exists(), reason="molt_text_tests is not built")
TEMPLATES = {path.stem: path.read_text() for path in sorted((Path(__file__).parent / "chat_templates").glob("*.jinja"))}
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}


def expected(case):
    """What transformers gives: the text and the spans in bytes, or None where it raises."""
    messages = [{key: value for key, value in message.items() if value is not None} for message in case["messages"]]
    try:
        texts, spans = render_jinja_template(
            [messages],
            tools=case.get("tools"),
            documents=case.get("documents"),
            chat_template=case["template"],
            add_generation_prompt=case.get("add_generation_prompt", False),
            return_assistant_tokens_mask=True,
            **case.get("variables", {}),
        )
    except Exception as error:
        return None, error
    to_bytes = lambda index: len(texts[0][:index].encode())  # noqa: E731
    return {"text": texts[0], "generated": [[to_bytes(begin), to_bytes(end)] for begin, end in spans[0]]}, None


def render(folder, cases):
    (folder / "cases.jsonl").write_text("".join(json.dumps(case, ensure_ascii=False) + "\n" for case in cases))
    done = subprocess.run(
        [TESTS, "--gtest_filter=ChatTemplateParity.RendersCases"],
        env=os.environ | {"MOLT_CHAT_CASES": str(folder)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0 and "1 test from 1 test suite ran" in done.stdout, (done.stdout + done.stderr)[-4000:]
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def check(folder, cases):
    """Compares all cases and returns how many were rendered."""
    rendered = 0
    for case, ours in zip(cases, render(folder, cases), strict=True):
        theirs, error = expected(case)
        if theirs is None:
            assert "error" in ours, f"{case}\nours: {ours}\nJinja raises {error!r}"
            continue
        if " object at 0x" in theirs["text"]:  # an iterator that printed its address
            continue
        assert "error" not in ours, f"{case}\nours: {ours['error']}\nJinja: {theirs['text']!r}"
        assert ours == theirs, str(case)
        rendered += 1
    return rendered


CALL = {"id": "abcdefgh1", "type": "function", "function": {"name": "weather", "arguments": {"city": "Zürich", "days": 3}}}
OTHER_CALL = {"id": "abcdefgh2", "function": {"name": "time", "arguments": {"zone": "CET", "exact": True, "offset": 1.5}}}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": 'The weather of a "city" — <now> & later',
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "days": {"type": "integer", "enum": [1, 2, 3]}},
                "required": ["city"],
            },
        },
    },
    {"type": "function", "function": {"name": "time", "description": "", "parameters": {"type": "object", "properties": {}}}},
]
SYSTEM = {"role": "system", "content": "  Be polite.\n"}
USER = {"role": "user", "content": "How is the weather in Zürich? 🙂\n"}
ANSWER = {"role": "assistant", "content": " It is sunny.\n "}
CONVERSATIONS = {
    "user": [USER],
    "system": [SYSTEM, USER],
    "turns": [USER, ANSWER, {"role": "user", "content": "And {{ tomorrow }}?"}],
    "system turns": [SYSTEM, USER, ANSWER, USER, ANSWER],
    "call": [
        USER,
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "name": "weather", "tool_call_id": "abcdefgh1", "content": '{"sun": true}'},
        ANSWER,
    ],
    "calls": [
        SYSTEM,
        USER,
        {"role": "assistant", "content": "Let me see.", "tool_calls": [CALL, OTHER_CALL]},
        {"role": "tool", "tool_call_id": "abcdefgh1", "content": "12°"},
        {"role": "tool", "tool_call_id": "abcdefgh2", "content": "12:30\nCET"},
        ANSWER,
        USER,
    ],
    "thinking": [
        USER,
        {"role": "assistant", "content": "<think>\nHmm.\n\n</think>\n\nSunny."},
        USER,
        {"role": "assistant", "reasoning": "\nLet me think.\n", "content": "[BEGIN FINAL RESPONSE] Rain. [END FINAL RESPONSE]"},
    ],
    "content blocks": [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, {"type": "image"}]}],
    "wrong order": [USER, USER],
    "unknown role": [USER, {"role": "critic", "content": "Hm."}],
    "no user": [SYSTEM],
    "no content": [{"role": "user"}],
}
VARIABLES = [
    {},
    {"enable_thinking": False},
    {"date_string": "24 Nov 2026", "tools_in_user_message": False},
    {"builtin_tools": ["weather", "code_interpreter"], "enable_thinking": True},
]


@pytest.mark.parametrize("style", TEMPLATES)
def test_style(style, tmp_path):
    cases = [
        {
            "template": TEMPLATES[style],
            "messages": messages,
            "tools": tools,
            "add_generation_prompt": prompt,
            "variables": SPECIAL | variables,
        }
        for messages in CONVERSATIONS.values()
        for tools in (None, TOOLS, [])
        for prompt in (False, True)
        for variables in VARIABLES
    ]
    assert check(tmp_path, cases) > len(cases) // 4  # most are not refused


def test_folders(tmp_path):
    """The places where folders keep their template, and special tokens as text or objects."""
    from tokenizers import Tokenizer, models
    from transformers import AutoTokenizer

    text, with_tools = TEMPLATES["mistral_v3"], "tools: {{ tools|length }}{{ bos_token }}{{ unk_token }}"
    tokens = {"bos_token": "<s>", "eos_token": {"__type": "AddedToken", "content": "</s>"}, "unk_token": None}
    layouts = {
        "text": ({"chat_template": text}, {}),
        "list": ({"chat_template": [{"name": "default", "template": text}, {"name": "tool_use", "template": with_tools}]}, {}),
        "file": ({"chat_template": "not this one"}, {"chat_template.jinja": text}),
        "files": ({}, {"chat_template.jinja": text, "additional_chat_templates/tool_use.jinja": with_tools}),
        "tokens": ({"chat_template": "{{ image_token }}{{ bos_token }}{{ eos_token }}", "extra_special_tokens": {"image_token": "<i>"}},
                   {"special_tokens_map.json": '{"eos_token": "<end>"}'}),
    }
    cases, results = [], []
    for name, (config, files) in layouts.items():
        folder = tmp_path / name
        (folder / "additional_chat_templates").mkdir(parents=True)
        Tokenizer(models.WordLevel({"<s>": 0, "</s>": 1}, unk_token="<s>")).save(str(folder / "tokenizer.json"))
        (folder / "tokenizer_config.json").write_text(
            json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **tokens, **config})
        )
        for path, content in files.items():
            (folder / path).write_text(content)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        for tools in (None, TOOLS):
            cases.append({"folder": str(folder), "messages": CONVERSATIONS["system turns"], "tools": tools})
            results.append(tokenizer.apply_chat_template(cases[-1]["messages"], tools=tools, tokenize=False))
    assert [result.get("text", result) for result in render(tmp_path, cases)] == results


def statements():
    """Corners of statements and white space, one template each."""
    return [
        "a\n  {% if true %}\n  b\n  {% endif %}\nc\n\n",
        "a {%- if true -%} b {%- endif %} c",
        "a\n  {%+ if true +%}\n b\n{%+ endif %}\nc",
        "  {# note #}\n  x {#- note -#}  y\n{#+ z +#}\n",
        "{% raw %}{{ x }} {% if %}{% endraw %}\n  {%- raw -%}  {{ y }}  {%- endraw -%}  z",
        "   {% raw %}\n a\n   {% endraw %}\nb",
        "{{ '{%' }}{{ \"%}\" }}\r\nx\ry\n",
        "{% for i in [1, 2, 3] %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}"
        "{{ loop.last }}{{ loop.length }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.cycle('a', 'b') }}{{ loop.depth }};{% endfor %}",
        "{% for i in range(10) if i is odd %}{{ i }}/{{ loop.length }}{% else %}none{% endfor %}",
        "{% for i in [] %}x{% else %}none{% endfor %}{% for i in none_given %}x{% else %}none{% endfor %}",
        "{% for i in range(9) %}{% if i == 2 %}{% continue %}{% endif %}{% if i > 4 %}{% break %}{% endif %}{{ i }}{% endfor %}",
        "{% for i in [1] %}{% break %}{% else %}else{% endfor %}{% for i in [1, 2] %}{% continue %}{% else %}else{% endfor %}",
        "{% for a, (b, c) in [[1, [2, 3]], (4, '56')] %}{{ a }}{{ b }}{{ c }};{% endfor %}",
        "{% for k, v in {'a': 1, 'b': [2]}.items() %}{{ k }}={{ v }},{% endfor %}{% for k in {'x': 1} %}{{ k }}{% endfor %}",
        "{% set x = 1 %}{% for i in [1, 2] %}{{ x }}{% set x = x + 1 %}{{ x }}{% endfor %}{{ x }}",
        "{% set a, b = 1, [2] %}{{ a }}{{ b }}{% set (c) = 3 %}{{ c }}{% set t = 1, %}{{ t }}",
        "{% set n = namespace(a=1, b={'c': 2}) %}{% for i in [1, 2] %}{% set n.a = n.a + i %}{% endfor %}{{ n.a }}{{ n.b.c }}{{ n.d }}",
        "{% set x %} a {{ 1 }} {% endset %}[{{ x }}]{% set y | upper | trim %} b {% endset %}[{{ y }}]",
        "{% set x = 1 %}{% set y %}{% set x = 2 %}{{ x }}{% endset %}{{ x }}{{ y }}",
        "{% macro m(a, b=2, c=a) %}({{ a }},{{ b }},{{ c }}){% endmacro %}{{ m(1) }}{{ m(1, c=3) }}{{ m(b=4) }}{{ m('x', 'y', 'z') }}",
        "{% macro m() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, x=3) }}{% macro n(a) %}{{ a }}{% endmacro %}{{ n(*[1], **{}) }}",
        "{% macro m() %}a{% endmacro %}{{ m(1) }}",
        "{% macro m(a) %}a{% endmacro %}{{ m(b=1) }}",
        "{% macro m(n) %}{{ n }}{% if n > 0 %}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(4) }}",
        "{% set x = 1 %}{% macro m() %}{{ x }}{% endmacro %}{% set x = 2 %}{{ m() }}",
        "{% macro m(a) %}[{{ caller(a) }}|{{ caller(2) }}]{% endmacro %}{% call(v) m(1) %}v={{ v }}{% endcall %}",
        "{% macro m() %}{{ caller is defined }}{% endmacro %}{{ m() }}{% call m() %}{% endcall %}",
        "{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}{{ a }}{% set a = 1 %}{% with a = a + 1 %}{{ a }}{% endwith %}{{ a }}",
        "{% filter upper | replace('A', 'b') %}aXa{% endfilter %}{% print 1, 'x' %}",
        "é{% for i in [1, 2] %}{% generation %}ü{{ i }}{% endgeneration %}-{% endfor %}",
        "{% generation %}{% set x = 1 %}{{ x }}{% endgeneration %}{{ x }}",
        "{% macro m() %}ab{% generation %}c{% endgeneration %}{% endmacro %}x{{ m() }}{% generation %}d{% endgeneration %}",
        "{% if messages %}1{% elif true %}2{% else %}3{% endif %}{% if [] %}1{% elif {} %}2{% else %}3{% endif %}",
        "{{ messages[0].content }}{{ messages[0]['role'] }}{{ messages[-1].nothing }}{{ nothing }}{{ messages[5] }}",
        "{{ nothing.more }}",
        "{{ messages[0].nothing.more }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({}) }}",
        "{{ messages[0].pop is defined }}{{ messages[0].items is callable }}",
        "{{ raise_exception('no') }}",
        "{{ tools is none }}{{ tools is defined }}{{ documents is none }}{{ add_generation_prompt }}",
        "{% for x in none %}{% endfor %}",
        "{% for x in 5 %}{% endfor %}",
        "{% set a, b = [1] %}",
        "{% set messages.x = 1 %}",
        "{{ 1 / 0 }}",
        "{{ 'a' + 1 }}",
        "{{ [1] < 'a' }}",
        "{{ loop }}",
        "{% set x = messages | map(attribute='role') %}{{ x | list }}{{ x | list }}{% if [] | map('upper') %}true{% endif %}",
        "{{ strftime_now('%d %b %Y %%') }}{{ dict(a=1, **{'b': 2}) }}{{ dict([('a', 1)]) }}{{ range(3) }}{{ range(5, 1, -2) | list }}",
        "{{ '%s-%05.1f-%d-%x-%r' % ('a', 2.25, 7.9, 255, 'q') }}{{ '%(a)s' % {'a': 1} }}{{ '%s' % [1] }}{{ '%3d|%-3d|%+d' | format(1, 2, 3) }}",
        "{{ '{} {1}'.format(1) }}",
        "{{ '{} {} {{x}} {a.b} {a[b]} {0!r:>5}|{c:.2f}|{d:,}'.replace('{} {}', '{0} {1}').format('x', 2, a={'b': 3}, c=1.005, d=1234567) }}",
        "{{ 'x' 'y' }}{{ '\\x41\\u00e9\\n\\t\\\\\\'\\q' }}{{ 1_000 }}{{ 0x1F }}{{ 1e3 }}{{ 1.5e-7 }}{{ 123456789.123456789 }}",
        "{{ {'a': [1, 'x', none, true, 1.0, {'b': 'ü\"\\\\\\n'}], 2: 3} | tojson }}{{ {'a': [1, {}], 'b': []} | tojson(indent=2) }}",
        "{{ {'b': 1, 'a': 'é'} | tojson(ensure_ascii=true, sort_keys=true, separators=(',', ':')) }}{{ (1, 2) | tojson }}{{ 'a/b<>&' | tojson }}",
        "{{ (messages | selectattr('role', 'equalto', 'user') | first).content }}{{ messages | rejectattr('role', 'in', ['user']) | list }}",
        "{{ messages | selectattr('x') | list | length }}{{ [3, 1, 2] | sort | join('-') }}{{ ['b', 'A'] | sort }}{{ ['b', 'A', 'a'] | unique | list }}",
        "{{ {'b': 1, 'a': 2} | dictsort }}{{ {'b': 1, 'a': 2} | dictsort(by='value', reverse=true) }}{{ {'a': 1} | items | list }}",
        "{{ 'hello wORLD-foo (bar' | title }}{{ 'hello wORLD' | capitalize }}{{ 'a\nb\n\nc' | indent }}{{ 'a\nb' | indent(2, true) }}",
        "{{ '42.9' | int }}{{ 'x' | int(7) }}{{ 'ff' | int(base=16) }}{{ '1e2' | float }}{{ 2.5 | round }}{{ 2.675 | round(2) }}{{ 2.1 | round(0, 'ceil') }}",
        "{{ x | default('d') }}{{ '' | d('e') }}{{ '' | d('e', true) }}{{ none | default('f') }}{{ (1 if false) is defined }}",
        "{{ 1 < 2 < 3 }}{{ 1 < 3 < 2 }}{{ 2 in [1, 2] }}{{ 'a' not in 'abc' }}{{ not 1 in [2] }}{{ 1 == 1.0 == true }}",
        "{{ -2 ** 2 }}{{ 2 ** 3 ** 2 }}{{ 7 // -2 }}{{ -7 % 3 }}{{ 1 ~ 2 * 3 }}{{ 'a' * 3 }}{{ [1] * 2 }}{{ 6 / 2 }}{{ 2 ** -1 }}",
        "{{ 'a,b,,c'.split(',') }}{{ ' a  b '.split() }}{{ 'a-b-c'.split('-', 1) }}{{ 'a-b-c'.rsplit('-', 1) }}{{ 'a\nb'.splitlines() }}",
        "{{ 'abc'.startswith(('x', 'a')) }}{{ 'abc'.endswith('bc') }}{{ 'xxabxx'.strip('x') }}{{ 'abcabc'.replace('b', 'X', 1) }}{{ 'aXbX'.find('X') }}",
        "{{ 'ÀÉß ŉ ΑΣ ΌΣΟΣ ǆ İ'.lower() }}{{ 'straße ﬁ ǆ ΐ'.upper() }}{{ 'ǆ ﬁx don\\'t'.title() }}{{ 'éa'.capitalize() }}{{ 'Aa'.isupper() }}",
        "{{ ['a', 'é\\n', \"it's\", '\"', '\\x00', '\\u200b'] }}{{ (1,) }}{{ () }}{{ {} }}{{ {'a': none} }}{{ 'x' | string }}{{ 1.0 }}{{ 1e16 }}{{ 1e-5 }}",
        "{{ 'abcdef'[1:4] }}{{ 'abcdef'[::-1] }}{{ 'äöü'[-1] }}{{ [1, 2, 3, 4][::2] }}{{ [1, 2, 3][-2:] }}{{ 'abc'[5:] }}{{ (1, 2, 3)[:-1] }}",
        "{{ 1 is number }}{{ true is number }}{{ true is integer }}{{ 'a' is sequence }}{{ {} is mapping }}{{ 4 is divisibleby 2 }}{{ 3 is odd }}{{ 1 is in [1] }}",
        "{{ 'a' is string and 1 is not none or false }}{{ 3 is gt 2 }}{{ 3 is ge(3) }}{{ 'x' is eq 'x' }}{{ none is none }}{{ x is undefined }}",
        "{{ [1, 2, 3] | sum }}{{ [1, 2, 3] | max }}{{ ['b', 'a'] | min }}{{ [[1, 2], [3]] | map('length') | list }}{{ [1, 2] | map('string') | join }}",
        "{{ [{'a': {'b': 1}}] | map(attribute='a.b') | list }}{{ [{}] | map(attribute='a', default=0) | list }}{{ [1, none] | select | list }}",
        "{{ 'abc' | list }}{{ 'abc' | first }}{{ [1, 2] | last }}{{ 'abc' | reverse }}{{ [1, 2] | reverse | list }}{{ -3 | abs }}{{ 'a' | upper }}",
    ]


def test_statements(tmp_path):
    messages = [USER, ANSWER]
    check(tmp_path, [{"template": text, "messages": messages} for text in statements()])


class Maker:
    """Makes values and expressions over the variables v, w (anything), s (text), n (a whole number), l (a list)."""

    atoms = ["v", "w", "s", "n", "l", "1", "2.5", "'a'", "'b c'", "none", "true", "[]", "[1, 'b']", "{'a': 1}", "(1, 2)", "l[0]", "v.a"]
    signs = "+ - * / // % ~ == != < <= > >= in and or".split() + ["not in"]
    filters = (
        "tojson trim lower upper title capitalize length list first last string int float abs sort reverse|list unique|list join sum max "
        "dictsort select|list items|list round(1) round(0,'floor') default('d',true) replace('a','bb') join('-') map('string')|list "
        "tojson(indent=2) reject('none')|list map(attribute='a')|list selectattr('a')|list indent(2) count int(-1) trim('a')"
    ).split()
    tests = "defined none string number integer float boolean mapping sequence iterable true false odd even lower upper"
    tests = tests.split() + ["eq(1)", "in [1, 2.5]", "divisibleby 2", "gt 1", "sameas none"]
    methods = (
        "strip() strip('a_') lstrip() split() split('a') split(none,1) rsplit('_',1) upper() title() startswith('a') "
        "endswith(('b','_')) replace('a','') replace('','.') find('b') count('a') lower() splitlines() isdigit() isalpha() isupper() "
        "capitalize() partition('b') rfind('1',-3) rsplit() rpartition('_') isspace() islower() isalnum() index('a') join(l) count('')"
    ).split()

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.pick = self.random.choice

    def text(self):
        return "".join(self.pick("aabbXY 12.,-_éßΣſ🙂\n\t'\"\\<{%") for _ in range(self.random.randrange(9)))

    def value(self, depth=2):
        kind = self.random.randrange(8 if depth else 6)
        if kind == 6:
            return [self.value(depth - 1) for _ in range(self.random.randrange(4))]
        if kind == 7:
            return {self.pick("abc"): self.value(depth - 1) for _ in range(self.random.randrange(4))}
        number = round(self.random.uniform(-99, 99), self.random.randrange(4))
        return [self.random.randint(-20, 20), number, self.text(), self.text(), None, self.pick([True, False])][kind]

    def bound(self):
        return self.pick(["", str(self.random.randint(-5, 5))])

    def expression(self, depth=3):
        if depth == 0:
            return self.pick(self.atoms)
        one, two = self.expression(depth - 1), self.expression(self.random.randrange(depth))
        made = [
            f"({one} {self.pick(self.signs)} {two})",
            f"({self.pick(['s', 'l', f'({one})|string', f'[{one}, n, {two}]'])})"
            f"[{self.bound()}:{self.bound()}:{self.pick(['', '1', '-1', '2', '-3'])}]",
            f"({one})[{two}]",
            f"({one})|{self.pick(self.filters)}",
            f"({one})|{self.pick(self.filters)}|{self.pick(self.filters)}",
            f"(({one}) is {self.pick(['', 'not '])}{self.pick(self.tests)})",
            f"s.{self.pick(self.methods)}",
            f"({one} if {two} else {self.pick(self.atoms)})",
            f"[{one}, {two}, {self.pick(self.atoms)}]|{self.pick(['sort', 'unique|list', 'join', 'tojson', 'min', 'select|list'])}",
            f"('%s|%r' % ({one}, {two}))",
            f"not ({one})",
            f"-({one})",
            f"[{one}].index({two})",
            f"{{'k': {one}}}.k",
            f"{{{self.pick(self.atoms)}: {one}}}",
            f"({self.pick(self.atoms)} < {one} <= {two})",
        ]
        return self.pick(made)

    def case(self):
        variables = {"v": self.value(), "w": self.value(), "s": self.text(), "n": self.random.randint(-9, 9), "l": self.value()}
        if not isinstance(variables["l"], list):
            variables["l"] = [self.value(0) for _ in range(3)]
        return {"template": "{{ " + self.expression() + " }}", "messages": [USER], "variables": variables}


@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
@given(seed=st.integers(0, 2**32))
def test_expressions(tmp_path_factory, seed):
    """Hypothesis chooses seeds; MOLT_CHAT_EXPRESSIONS says how many expressions are made of each."""
    maker = Maker(seed)
    cases = [maker.case() for _ in range(int(os.environ.get("MOLT_CHAT_EXPRESSIONS", "200")))]
    check(tmp_path_factory.mktemp("expressions"), cases)
