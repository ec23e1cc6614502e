"""A comparison on a real Slurm cluster of one node, with the real command."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ds2d2_yolo.compare.results import read_results
from tests.helpers.slurm_cluster import missing_programs, one_node_slurm, queue, wait_for

MISSING = missing_programs()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"needs Slurm and munge, here without {', '.join(MISSING)}"),
]
EPOCHS = 30


@pytest.fixture
def cluster() -> Iterator[dict[str, str]]:
    """The environment of the commands of a cluster."""
    pytest.importorskip("submitit")
    with one_node_slurm() as environment:
        yield environment


def test_an_interrupted_comparison_finds_its_requeued_jobs_again(
    cluster: dict[str, str], tmp_path: Path, tiny_data: Callable[[str], Path], checkpoint: Callable[..., Path]
) -> None:
    words = [
        "compare", f"teacher={checkpoint('yolov8s-obb.yaml')}", "student=yolov8n-obb.yaml", f"data={tiny_data('obb')}",
        "imgsz=96", f"epochs={EPOCHS}", "batch=4", "nbs=4", "optimizer=AdamW", "lr0=0.001", "warmup_epochs=0",
        "val=False", "workers=0", f"project={tmp_path}", "arms=plain,distill_model", "seeds=0", "launcher=slurm",
        "slurm=time=60,cpus_per_task=1",
    ]  # fmt: skip
    folder = tmp_path / "compare"

    def start() -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "ds2d2_yolo", *words]
        return subprocess.Popen(command, env=cluster, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def notes(arm: str) -> dict[str, Any]:
        file = folder / arm / "seed0" / "watched.json"
        return json.loads(file.read_text()) if file.is_file() else {"epochs": {}, "trained": False}

    first = start()
    for arm in ("plain", "distill_model"):
        wait_for(lambda arm=arm: first.poll() is not None or len(notes(arm)["epochs"]) >= 3, f"epoch 3 of {arm}", 600)
    assert first.poll() is None, first.communicate()[1]
    first.send_signal(signal.SIGKILL)
    first.communicate()
    jobs = queue(cluster)
    assert sorted(jobs.values()) == ["RUNNING", "RUNNING"]
    before = {arm: notes(arm) for arm in ("plain", "distill_model")}
    assert not any(arm["trained"] for arm in before.values())

    # by hand, and with the signal that Slurm sends before a time limit and on preemption
    by_hand, by_signal = sorted(jobs, key=int)
    subprocess.run(["scontrol", "requeue", by_hand], env=cluster, check=True)
    subprocess.run(["scancel", "--signal=USR2", by_signal], env=cluster, check=True)
    second = start()
    out, err = second.communicate(timeout=1200)
    assert second.returncode == 0, err
    assert f"plain, seed 0: is already Slurm job {by_hand}" in err
    assert f"distill_model, seed 0: is already Slurm job {by_signal}" in err
    rows = {row.arm: row for row in read_results(folder / "results.csv")}
    for arm, earlier in before.items():
        assert (rows[arm].sessions, rows[arm].epochs_trained) == (2, EPOCHS)
        after = notes(arm)["epochs"]
        assert all(after[e] == seconds for e, seconds in list(earlier["epochs"].items())[:-1]), "epochs were repeated"
    assert "| distill_model |" in out

    third = start()
    out_again, err = third.communicate(timeout=600)
    assert (third.returncode, out_again) == (0, out), err
    assert len(list((folder / ".slurm").glob("*_submission.sh"))) == 2, "a job was submitted twice"
    assert not queue(cluster)
