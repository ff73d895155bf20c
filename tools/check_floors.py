#!/usr/bin/env python3
"""Checks that each room (folder of src/) includes only from itself and the rooms before it.

usage: check_floors.py [ROOT]     ROOT: the checkout, by default the one this file lies in
Prints each violation as file:line and ends with 1 if there is any.
"""
import re
import sys
from pathlib import Path

# The same order stands in CMakeLists.txt and docs/architecture.md.
ROOMS = ("base ops model formats text data parallel train infer evaluate distill serve report cli").split()
INCLUDE = re.compile(r'\s*#\s*include\s*["<]([^"/>]+)/')
SOURCES = {".h", ".cc", ".cu", ".cuh"}


def violations(root):
    source = root / "src"
    for path in sorted(p for p in source.rglob("*") if p.suffix in SOURCES):
        room = path.relative_to(source).parts[0]
        if room not in ROOMS:
            yield f"{path.relative_to(root)}:1: no room named {room}"
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            match = INCLUDE.match(line)
            if match and match[1] in ROOMS and ROOMS.index(match[1]) > ROOMS.index(room):
                yield f"{path.relative_to(root)}:{number}: {room} includes from {match[1]}, a room after it"


def main():
    if len(sys.argv) > 2 or any(a.startswith("-") for a in sys.argv[1:]):
        print(__doc__.strip(), file=sys.stderr)
        return 2
    root = Path(sys.argv[1]) if len(sys.argv) == 2 else Path(__file__).resolve().parent.parent
    if not (root / "src").is_dir():
        print(f"{root / 'src'}: found no folder", file=sys.stderr)
        return 2
    found = list(violations(root))
    for violation in found:
        print(violation)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
