"""Checkpoints are replaced whole: a write that fails leaves the one before."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils.patches import torch_load

from ds2d2_yolo import DS2D2Trainer
from ds2d2_yolo.bridge.training.find_run import find_unfinished
from ds2d2_yolo.bridge.training.hooks.atomic_checkpoints import STAGING, finalize_checkpoints
from ds2d2_yolo.bridge.training.hooks.exact_resume import resume_file
from ds2d2_yolo.errors import BadUseError


def test_a_failed_write_leaves_the_checkpoint_before(
    tiny_trainer: Callable[..., DS2D2Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = tiny_trainer("obb", epochs=2, imhi=0)
    original = DetectionTrainer.save_model

    def fail(self: Any) -> bool:
        if self.epoch == 1:
            self.wdir.mkdir(exist_ok=True)
            self.last.write_bytes(b"half a file")
            raise OSError("no space left on device")
        return bool(original(self))

    monkeypatch.setattr(DetectionTrainer, "save_model", fail)
    with pytest.raises(OSError, match="no space"):
        trainer.train()
    assert trainer.last == trainer.save_dir / "weights" / "last.pt"
    assert torch_load(trainer.last, map_location="cpu")["epoch"] == 0


@pytest.mark.parametrize("moment", ["before", "after"])
def test_an_interruption_while_the_first_checkpoint_is_put_in_place_knows_it(
    moment: str, tiny_trainer: Callable[..., DS2D2Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = os.replace

    def interrupted(source: Any, target: Any) -> None:
        target = Path(target)
        if target.name != "last.pt" or moment == "after":
            original(source, target)
        if target.name == "last.pt":
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    trainer = tiny_trainer("obb", epochs=2, imhi=0)
    with pytest.raises(KeyboardInterrupt) as interruption:
        trainer.train()
    assert trainer.last.is_file() == (moment == "after")
    assert ("resume" in interruption.value.args) == trainer.last.is_file()


def test_a_process_that_launched_others_asks_the_folder(tiny_trainer: Callable[..., DS2D2Trainer]) -> None:
    trainer = tiny_trainer("obb", imhi=0)
    trainer.ddp = True
    assert not trainer.checkpoints.saved
    trainer.wdir.mkdir(parents=True, exist_ok=True)
    trainer.last.write_bytes(b"written by the first of them")
    assert trainer.checkpoints.saved
    trainer.ddp = False
    assert not trainer.checkpoints.saved, "of an earlier run in the same folder"


def test_what_a_kill_left_half_written_is_not_taken_over(tiny_trainer: Callable[..., DS2D2Trainer]) -> None:
    trainer = tiny_trainer("obb", imhi=0, save_period=1)

    def plant(t: Any) -> None:
        (t.wdir / STAGING).mkdir()
        (t.wdir / STAGING / "best.pt").write_bytes(b"half a file")
        (t.wdir / STAGING / "epoch7.pt").write_bytes(b"half a file")

    trainer.add_callback("on_train_start", plant)
    trainer.train()
    assert {p.name for p in trainer.wdir.iterdir()} == {"best.pt", "last.pt", "epoch0.pt"}
    assert torch_load(trainer.best, map_location="cpu")["model"] is not None


def test_finishing_twice_changes_nothing(tiny_trainer: Callable[..., DS2D2Trainer]) -> None:
    trainer = tiny_trainer("obb", imhi=0)
    trainer.train()

    def weights() -> dict[str, torch.Tensor]:
        state: dict[str, torch.Tensor] = torch_load(trainer.last, map_location="cpu")["model"].state_dict()
        return state

    before = weights()
    finalize_checkpoints(trainer.wdir)
    after = weights()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k], after[k]) for k in before)


class Cut(Exception):
    """Stands for a kill."""


def test_a_kill_behind_the_last_epoch_leaves_nothing_of_ours(
    tiny_trainer: Callable[..., DS2D2Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = tiny_trainer("obb", imhi=0)

    def cut(self: Any) -> None:
        raise Cut

    monkeypatch.setattr(DS2D2Trainer, "final_eval", cut)
    with pytest.raises(Cut):
        trainer.train()
    assert resume_file(trainer.wdir, 0).is_file()
    for killed_again in (False, True):
        if killed_again:  # in the clean-up, between the files and the rest
            (trainer.wdir / STAGING).mkdir()
            (trainer.wdir / STAGING / "last.pt").write_bytes(b"half a file")
            resume_file(trainer.wdir, 0).write_bytes(b"half a file")
        with pytest.raises(BadUseError, match="is finished, nothing to resume"):
            find_unfinished(str(trainer.save_dir), {}, ("obb",))
        assert {p.name for p in trainer.wdir.iterdir()} == {"best.pt", "last.pt"}
        assert torch_load(trainer.last, map_location="cpu")["epoch"] == -1


def test_a_run_that_stopped_early_is_finished(
    tiny_trainer: Callable[..., DS2D2Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is, though its epochs are not used up: one more epoch would not be the uninterrupted run's."""
    trainer = tiny_trainer("obb", imhi=0, epochs=9, val=True, patience=1)
    fitness = iter((0.5, 0.4, 0.3))
    monkeypatch.setattr(DS2D2Trainer, "validate", lambda self: ({}, next(fitness)))
    ends: list[Path] = []

    def cut(self: Any) -> None:
        ends.append(self.last)
        raise Cut

    monkeypatch.setattr(DS2D2Trainer, "final_eval", cut)
    with pytest.raises(Cut):
        trainer.train()
    assert torch_load(ends[0], map_location="cpu")["epoch"] == 1
    with pytest.raises(BadUseError, match="is finished, nothing to resume"):
        find_unfinished(str(trainer.save_dir), {}, ("obb",))
