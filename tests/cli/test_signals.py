"""The command itself, ended by a signal in the middle of an epoch: one line, the right status, nothing lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")


@pytest.mark.parametrize(
    ("sent", "status", "message"),
    [pytest.param("SIGINT", 130, "interrupted", marks=pytest.mark.slow), ("SIGTERM", 143, "terminated")],
)
def test_a_training_ends_by_a_signal_and_goes_on(
    sent: str,
    status: int,
    message: str,
    tiny_data: Callable[[str], Path],
    checkpoint: Callable[..., Path],
    tmp_path: Path,
) -> None:
    words = [
        "train", f"teacher={checkpoint('yolov8s-obb.yaml')}", "student=yolov8n-obb.yaml", f"data={tiny_data('obb')}",
        "imgsz=96", "epochs=40", "batch=4", "device=cpu", "plots=False", "imhi=0", f"project={tmp_path}", "name=run",
    ]  # fmt: skip
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1"}
    log = tmp_path / "log.txt"
    last = tmp_path / "run" / "weights" / "last.pt"
    for before in (True, False):  # before the first checkpoint, and in a later epoch
        with log.open("w") as f:
            process = subprocess.Popen(
                [sys.executable, "-m", "ds2d2_yolo", *words], stdout=f, stderr=f, env=env, start_new_session=True
            )
        deadline = time.monotonic() + 600
        # of a first epoch that was quicker than this loop
        earlier_inode = last.stat().st_ino if last.is_file() else None
        while not (
            "Starting training" in log.read_text(errors="replace")
            and (before or (last.is_file() and last.stat().st_ino != earlier_inode))
        ):
            assert process.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.killpg(process.pid, getattr(signal, sent))  # as a terminal and most batch systems do: to all of them
        assert process.wait(60) == status, log.read_text()[-2000:]
        text = log.read_text(errors="replace")
        assert "Traceback" not in text
        line = text.strip().splitlines()[-1]
        assert line.startswith(f"ds2d2-yolo: {message}; go on with: ds2d2-yolo train teacher=")
        assert line.endswith(" resume") == last.is_file()
        words = [*words, "exist_ok=True"]
    assert last.is_file()
    assert not list(last.parent.glob(".*.tmp"))
