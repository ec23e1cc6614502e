"""Checkpoints are replaced whole: a write that fails leaves the one before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils.patches import torch_load

from ds2d2_yolo import DS2D2Trainer
from ds2d2_yolo.bridge.checkpoints import clean_checkpoint, save_whole


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


def test_a_clean_checkpoint_is_left_alone(tmp_path: Any) -> None:
    file = tmp_path / "plain.pt"
    save_whole({"model": torch.nn.Linear(1, 1), "train_args": {"epochs": 1}}, file)
    before = file.read_bytes()
    assert not clean_checkpoint(file)
    assert file.read_bytes() == before
