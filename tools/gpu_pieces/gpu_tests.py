"""The tests with the marker `gpu`."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpu_pieces.runner import Save, Skip

REPOSITORY = Path(__file__).resolve().parents[2]
LINE = re.compile(r"^(\S+::.*?) (PASSED|FAILED|ERROR|SKIPPED)\b")


def gpu_tests(options: Mapping[str, Any], save: Save) -> dict[str, Any]:
    """Run `pytest -m gpu` on the files that have such tests, and count the results as they come.

    Args:
        options (Mapping[str, Any]): Not used.
        save (Save): Stores the counts after each test.

    Returns:
        (dict[str, Any]): Numbers of passed, failed and skipped tests, names of the failed ones.

    Raises:
        Skip: If no test ran.
        ValueError: If a test failed, or pytest itself.
    """
    files = [f for f in sorted((REPOSITORY / "tests").rglob("test_*.py")) if "mark.gpu" in f.read_text("utf-8")]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-m",
        "gpu",
        "-v",
        "--color=no",
        "-p",
        "no:cacheprovider",
        *map(str, files),
    ]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    counts: Counter[str] = Counter()
    failed: list[str] = []
    assert process.stdout is not None
    for line in process.stdout:
        print(line, end="", flush=True)
        if match := LINE.match(line):
            counts[match[2].lower()] += 1
            failed += [match[1]] if match[2] in {"FAILED", "ERROR"} else []
            save({**counts, "not passed": failed})
    status = process.wait()
    if failed or status:
        raise ValueError(f"pytest ended with status {status}, {len(failed)} tests did not pass")
    if not counts["passed"]:
        raise Skip("no test ran")
    return {**counts, "not passed": failed}
