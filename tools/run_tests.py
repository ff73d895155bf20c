#!/usr/bin/env python3
"""Runs every test program of a build folder and every tests/**/test_*.py, and counts them on the last line.

    tools/run_tests.py BUILD_FOLDER [--filter TEXT]

Data that some tests need is looked for in $MOLT_SHARED (default: the folder `shared` beside the checkout); those tests are skipped without it.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as xml

ROOT = pathlib.Path(__file__).resolve().parent.parent


def run_googletest(program, folder, env):
    """(passed, failed, skipped) of one test program; a crash counts as one failure."""
    report = folder / (program.name + ".json")
    start = time.monotonic()
    done = subprocess.run([program, f"--gtest_output=json:{report}", "--gtest_brief=1"], env=env, cwd=ROOT)
    if not report.exists():
        print(f"{program.name}: ended with {done.returncode} before it could report")
        return 0, 1, 0
    passed = failed = skipped = 0
    for suite in json.loads(report.read_text())["testsuites"]:
        for test in suite["testsuite"]:
            if test.get("failures"):
                failed += 1
            elif test["result"] == "SKIPPED" or test["status"] == "NOTRUN":
                skipped += 1
            else:
                passed += 1
    print(f"{program.name}: {passed} passed, {failed} failed, {skipped} skipped in {time.monotonic() - start:.1f} s", flush=True)
    return passed, failed + (done.returncode != 0 and failed == 0), skipped


def run_pytest(folder, env, extra):
    report = folder / "pytest.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", "tests", *extra]
    done = subprocess.run(command, env=env, cwd=ROOT)
    if done.returncode == 5:  # no tests collected
        return 0, 0, 0
    if not report.exists():
        return 0, 1, 0
    suite = next(xml.parse(report).getroot().iter("testsuite"))
    total, skipped = int(suite.get("tests")), int(suite.get("skipped"))
    failed = int(suite.get("failures")) + int(suite.get("errors"))
    return total - failed - skipped, failed + (done.returncode != 0 and failed == 0), skipped


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--filter", default="", help="only test programs whose name contains this; no Python tests")
    arguments = parser.parse_args()
    build = arguments.build.resolve()
    env = dict(os.environ, OMP_WAIT_POLICY="passive", MOLT=str(build / "molt"), MOLT_BUILD=str(build), PYTHONDONTWRITEBYTECODE="1")
    shared = pathlib.Path(env.setdefault("MOLT_SHARED", str(ROOT.parent / "shared")))
    if not shared.is_dir():
        print(f"No test data at {shared} (set MOLT_SHARED): the tests that need it are skipped")
    counts = []
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for program in sorted(build.glob("molt_*_tests")):
            if arguments.filter in program.name:
                counts.append(run_googletest(program, folder, env))
        if not arguments.filter:
            counts.append(run_pytest(folder, env, []))
    passed, failed, skipped = (sum(column) for column in zip(*counts)) if counts else (0, 0, 0)
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
