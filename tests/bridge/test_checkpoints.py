"""Checkpoints are replaced whole: a write that fails leaves the one before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils.patches import torch_load

from ds2d2_yolo import DS2D2Trainer
from ds2d2_yolo.bridge.checkpoints import STAGING, finish_files


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
    finish_files(trainer.wdir)
    after = weights()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k], after[k]) for k in before)
