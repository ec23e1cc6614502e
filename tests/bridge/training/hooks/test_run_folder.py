"""The run's folder in processes that see rank 0's disk, and in those that do not. Rank 0 is played by a function."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ds2d2_yolo.bridge.training.hooks import run_folder as module
from ds2d2_yolo.bridge.training.hooks.run_folder import NAMES, RunFolder


def trainer_in(folder: Path) -> Any:
    weights = folder / "weights"
    paths = (folder, weights, weights / "last.pt", weights / "best.pt", folder / "results.csv")
    args = SimpleNamespace(save_dir=str(folder), name=folder.name)
    return SimpleNamespace(args=args, **dict(zip(NAMES, paths, strict=True)))


@pytest.fixture
def as_second_rank(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[bool], RunFolder]:
    """Share rank 0's folder, `first`, with this process, on the same disk or not."""

    def share(same_disk: bool) -> RunFolder:
        first = trainer_in(tmp_path / "first" / "run")
        first.wdir.mkdir(parents=True)
        first.best.write_bytes(b"best")

        def broadcast(values: list[Any]) -> list[Any]:
            if isinstance(values[0], bool):
                return [first.best.is_file()]
            if len(values) == len(NAMES):
                return [getattr(first, name) for name in NAMES]
            seen = first.save_dir / ".seen-1"
            if same_disk:
                seen.touch()
            return [seen]

        @contextmanager
        def file_from_rank0(path: Path) -> Iterator[Path]:
            copy = tmp_path / "received"
            shutil.copyfile(first.best, copy)
            yield copy

        monkeypatch.setattr(module, "distributed", lambda: True)
        monkeypatch.setattr(module.dist, "get_rank", lambda: 1)
        monkeypatch.setattr(module, "broadcast_from_rank0", broadcast)
        monkeypatch.setattr(module, "true_in_all", lambda value: value)
        monkeypatch.setattr(module, "file_from_rank0", file_from_rank0)
        folder = RunFolder(trainer_in(tmp_path / "second" / "run"))
        folder.share()
        return folder

    return share


def test_one_process_keeps_its_folder(tmp_path: Path) -> None:
    trainer = trainer_in(tmp_path / "run")
    before = dict(vars(trainer))
    folder = RunFolder(trainer)
    folder.share()
    folder.deliver("best")
    folder.close()
    assert {**vars(trainer), "args": None} == {**before, "args": None}
    assert folder.everywhere
    assert not list(tmp_path.iterdir())


def test_a_process_that_sees_the_folder_takes_it(as_second_rank: Callable[[bool], RunFolder], tmp_path: Path) -> None:
    folder = as_second_rank(True)
    trainer = folder._trainer
    assert folder.everywhere
    assert trainer.best == tmp_path / "first" / "run" / "weights" / "best.pt"
    assert (trainer.args.save_dir, trainer.args.name) == (str(tmp_path / "first" / "run"), "run")
    folder.deliver("best")
    assert not (tmp_path / "received").exists()


def test_a_process_on_another_disk_gets_the_checkpoint_into_a_temporary_folder(
    as_second_rank: Callable[[bool], RunFolder], tmp_path: Path
) -> None:
    folder = as_second_rank(False)
    trainer = folder._trainer
    assert not folder.everywhere
    assert tmp_path not in trainer.save_dir.parents
    assert trainer.args.save_dir == str(trainer.save_dir)
    assert trainer.wdir.is_dir()
    assert not trainer.best.exists()
    folder.deliver("best")
    assert trainer.best.read_bytes() == b"best"
    (tmp_path / "first" / "run" / "weights" / "best.pt").unlink()
    trainer.best.unlink()
    folder.deliver("best")
    assert not trainer.best.exists(), "rank 0 has none either"
    folder.close()
    assert not trainer.save_dir.exists()
