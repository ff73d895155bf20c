"""tools/check_floors.py on a tree that keeps the order of the rooms, and on one that breaks it."""
import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).resolve().parents[2] / "tools" / "check_floors.py"


def check(root, files):
    for name, text in files.items():
        path = root / "src" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    result = subprocess.run([sys.executable, TOOL, root], capture_output=True, text=True)
    return result.returncode, result.stdout


def test_accepts_what_lies_before(tmp_path):
    assert check(tmp_path, {"ops/a.cc": '#include "base/error.h"\n#include "ops/a.h"\n#include <sys/stat.h>\n'}) == (0, "")


def test_names_each_violation(tmp_path):
    code, output = check(tmp_path, {"ops/deep/a.cu": '// first\n  #  include "model/block.h"\n', "model/b.h": '#include "cli/c.h"\n'})
    assert code == 1
    assert output.splitlines() == [
        "src/model/b.h:1: model includes from cli, a room after it",
        "src/ops/deep/a.cu:2: ops includes from model, a room after it",
    ]


def test_names_an_unknown_room(tmp_path):
    code, output = check(tmp_path, {"attic/a.cc": ""})
    assert (code, output) == (1, "src/attic/a.cc:1: no room named attic\n")
