"""A run remembers the torchrun launch that began it, so that a restart of the launch goes on with it."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch import distributed as dist

from ds2d2_yolo.bridge.training import continued_run as continued
from ds2d2_yolo.bridge.training.continued_run import continued_run
from ds2d2_yolo.bridge.training.machines import launch as module
from ds2d2_yolo.bridge.training.machines.launch import LAUNCH_FILE, is_marked, launch_name, mark_folder, restarted
from ds2d2_yolo.bridge.training.machines.store import CONTINUED, MachineStore
from ds2d2_yolo.bridge.upstream.arguments import ARGS_KEY
from ds2d2_yolo.errors import BadUseError

TASKS = ("detect", "obb")


@pytest.fixture
def under_torchrun(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Make this process one that torchrun started, or restarted so many times."""
    monkeypatch.setattr(module, "RANK", 0)

    def start(restarts: int) -> None:
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", str(restarts))

    return start


def write_last(folder: Path, epoch: int = 4) -> Path:
    last = folder / "weights" / "last.pt"
    last.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"epoch": epoch, "train_args": {ARGS_KEY: {}, "epochs": 9, "task": "obb"}}, last)
    return last


def test_a_process_without_torchrun_has_no_launch(tmp_path: Path) -> None:
    assert launch_name() is None
    assert not restarted()
    mark_folder(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_launch_keeps_its_name_over_restarts(under_torchrun: Callable[[int], None], tmp_path: Path) -> None:
    under_torchrun(0)
    name = launch_name()
    assert name is not None
    assert str(os.getppid()) in name.split()
    assert not restarted()
    mark_folder(tmp_path)
    under_torchrun(1)
    assert restarted()
    assert launch_name() == name
    assert is_marked(tmp_path, name)
    assert not is_marked(tmp_path, f"{name}1")


def test_a_restart_goes_on_with_the_run_of_its_launch(under_torchrun: Callable[[int], None], tmp_path: Path) -> None:
    under_torchrun(0)
    keys = {"project": str(tmp_path), "name": "run"}
    last = write_last(tmp_path / "run-2")
    mark_folder(tmp_path / "run-2")
    write_last(tmp_path / "run-3")
    (tmp_path / "run-3" / LAUNCH_FILE).write_text("another launch\n")
    with continued_run(None, keys, TASKS) as run:
        assert run is None, "not restarted"
    under_torchrun(1)
    with continued_run(None, keys, TASKS) as run:
        assert run is not None
        assert (run.last, run.task) == (last, "obb")
    write_last(tmp_path / "run-2", epoch=-1)
    with pytest.raises(BadUseError, match="is finished, nothing to resume"), continued_run(None, keys, TASKS):
        pass
    last.unlink()
    with continued_run(None, keys, TASKS) as run:
        assert run is None, "no epoch was saved"


@pytest.fixture
def two_machines(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Make this process a rank of two that share a store."""
    store = dist.HashStore()
    monkeypatch.setattr(continued, "several_machines", lambda: True)

    def become(rank: int) -> None:
        of_rank = MachineStore(store, rank, 2, timedelta(seconds=20))
        monkeypatch.setattr(continued, "machine_store", lambda: of_rank)

    return become


@pytest.mark.parametrize("resume", [True, None])
def test_on_several_machines_rank_0_decides(
    resume: bool | None, two_machines: Callable[[int], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    last = write_last(tmp_path / "run")
    keys = {"project": str(tmp_path), "name": "run"}
    monkeypatch.setattr(continued, "shared_file", lambda store, file, content, folder: file)
    two_machines(0)
    with continued_run(resume, keys, TASKS) as first:
        pass
    two_machines(1)
    with continued_run(resume, {"project": str(tmp_path / "nothing here")}, TASKS) as second:
        pass
    assert first == second
    assert (first and first.last) == (last if resume else None)


def test_the_error_of_rank_0_reaches_the_others(two_machines: Callable[[int], None], tmp_path: Path) -> None:
    two_machines(0)
    continued.machine_store()._write(CONTINUED, {"error": "machine 0 (a): no saved epoch"})
    two_machines(1)
    with pytest.raises(BadUseError, match=r"machine 0 \(a\): no saved epoch"), continued_run(True, {}, TASKS):
        pass
