"""Threads: their number, and the short spin that every process gets before torch is loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ds2d2_yolo.utils.threads import MAX_THREADS, SHORT_SPIN, shorten_openmp_spin, thread_count, usable_cores

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, SHORT_SPIN),
        ({"GOMP_SPINCOUNT": "7"}, {**SHORT_SPIN, "GOMP_SPINCOUNT": "7"}),
        ({"KMP_BLOCKTIME": "infinite"}, {**SHORT_SPIN, "KMP_BLOCKTIME": "infinite"}),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": "ACTIVE"}),
    ],
)
def test_the_spin_is_short_unless_the_user_chose(before: dict[str, str], after: dict[str, str]) -> None:
    environment = dict(before)
    shorten_openmp_spin(environment)
    assert environment == after


@pytest.mark.parametrize(
    ("requested", "cores", "threads"),
    [
        (None, 2, 2),
        (None, 64, MAX_THREADS),
        ("1", 2, 1),
        ("3,2", 2, 3),
        ("16", 2, 16),
        ("", 4, 4),
        ("many", 4, 4),
        ("0", 4, 4),
    ],
)
def test_the_number_of_threads(
    monkeypatch: pytest.MonkeyPatch, requested: str | None, cores: int, threads: int
) -> None:
    monkeypatch.setattr("ds2d2_yolo.utils.threads.usable_cores", lambda: cores)
    if requested is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", requested)
    assert thread_count() == threads


def test_usable_cores_are_those_of_the_affinity() -> None:
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)


ENTRY = """
import os, sys
import ds2d2_yolo.cli
ds2d2_yolo.cli.main = lambda arguments: print(os.environ.get("GOMP_SPINCOUNT"), "torch" in sys.modules) or 0
ds2d2_yolo.cli.entrypoint()
"""
TOOL = """
import os, sys
sys.path.insert(0, "tools")
def audit(event, arguments):
    if event == "import" and arguments[0] == "torch" and "told" not in globals():
        globals()["told"] = print(os.environ.get("GOMP_SPINCOUNT"))
sys.addaudithook(audit)
import bench_core
"""


def output_of(code: str) -> str:
    clean = {k: v for k, v in os.environ.items() if k not in {*SHORT_SPIN, "OMP_WAIT_POLICY"}}
    environment = {**clean, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=REPOSITORY, check=True)
    return done.stdout.strip()


def test_the_command_line_sets_it_before_torch_is_loaded() -> None:
    assert output_of(ENTRY) == f"{SHORT_SPIN['GOMP_SPINCOUNT']} False"


def test_the_tools_set_it_before_torch_is_loaded() -> None:
    assert output_of(TOOL).splitlines()[0] == SHORT_SPIN["GOMP_SPINCOUNT"]


def test_the_tests_have_it() -> None:
    assert os.environ.keys() & {*SHORT_SPIN, "OMP_WAIT_POLICY"}


BRIDGE = """
import os
import ds2d2_yolo.bridge.upstream.devices as devices
from ds2d2_yolo.utils.threads import thread_count
with devices.cpu_threads():
    devices.check_device("cpu")
    print(os.environ.get("OMP_NUM_THREADS"), thread_count(), devices.torch.get_num_threads())
"""


@pytest.mark.parametrize("requested", [None, "1"])
def test_ultralytics_default_is_not_taken_for_the_users_choice(
    requested: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ultralytics sets OMP_NUM_THREADS=1 when it is imported, if nobody has set it."""
    if requested is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", requested)
    threads = int(requested or min(usable_cores(), MAX_THREADS))
    assert output_of(BRIDGE).splitlines()[-1] == f"{requested} {threads} {threads}"
