"""The training of an amplifier that was cut off, wherever that was, ends with the weights of one that was not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from ultralytics.utils import callbacks

from ds2d2_yolo.bridge.training import amplifier_trainer, obtain_amplifier
from ds2d2_yolo.bridge.training.amplify import amplify


class Cut(Exception):
    """Stands for a kill."""


@pytest.fixture
def obtain(
    tiny_data: Callable[[str], Path], checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> Callable[[Path], Path]:
    """Obtain an amplifier of three epochs that is kept in a folder."""

    def get(folder: Path) -> Path:
        monkeypatch.setattr("ds2d2_yolo.bridge.models.amplifier_store.amplifier_folder", lambda: folder)
        keys: dict[str, Any] = {"imgsz": 96, "batch": 4, "nbs": 8, "device": "cpu", "lr0": 0.01, "optimizer": "AdamW"}
        return amplify(checkpoint("yolov8n-obb.yaml"), tiny_data("obb"), amplifier_epochs=3, **keys).file

    return get


def test_ends_with_the_same_weights(
    obtain: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uninterrupted_weights = load_file(obtain(tmp_path / "uninterrupted"))
    saves, original = 0, amplifier_trainer.AmplifierTrainer.save_model

    def cut_off(self: Any) -> bool:
        nonlocal saves
        saves += 1
        done = original(self)
        if saves in {1, 3}:  # after the first epoch, and after the last one
            raise Cut
        return done

    monkeypatch.setattr(amplifier_trainer.AmplifierTrainer, "save_model", cut_off)
    for _ in range(2):
        with pytest.raises(Cut):
            obtain(tmp_path / "cut")
        torch.rand(3)  # another process would stand elsewhere
    resumed_weights = load_file(obtain(tmp_path / "cut"))
    assert saves == 3, "no epoch was run twice"
    assert resumed_weights.keys() == uninterrupted_weights.keys()
    assert [k for k in uninterrupted_weights if not torch.equal(resumed_weights[k], uninterrupted_weights[k])] == []
    training_folder = tmp_path / "cut" / f"{next((tmp_path / 'cut').glob('*.safetensors')).stem}-3"
    training_folder.mkdir()  # a kill in the middle of the clean-up
    obtain(tmp_path / "cut")
    kinds = {p.suffix for p in (tmp_path / "cut").iterdir()}
    assert kinds <= {".safetensors", ".csv", ".lock"}, "the folder of the training is gone"


def test_class_weights_of_the_teachers_own_training_are_not_taken(
    checkpoint: Callable[..., Path], tiny_data: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ds2d2_yolo.bridge.models.amplifier_store.amplifier_folder", lambda: tmp_path / "amplifiers")
    teacher_checkpoint = torch.load(checkpoint("yolov8n-obb.yaml"), weights_only=False)
    teacher_checkpoint["model"].class_weights = torch.tensor([0.2, 1.8])  # where Ultralytics' cls_pw leaves them
    torch.save(teacher_checkpoint, tmp_path / "teacher.pt")
    seen, original = [], amplifier_trainer.AmplifierTrainer.save_model

    def look(self: Any) -> Any:
        seen.append(self.model.criterion.class_weights)
        return original(self)

    monkeypatch.setattr(amplifier_trainer.AmplifierTrainer, "save_model", look)
    amplify(tmp_path / "teacher.pt", tiny_data("obb"), amplifier_epochs=1, imgsz=96, batch=4, device="cpu")
    assert seen == [None]


@pytest.mark.parametrize(
    ("epochs", "amplifier_epochs", "close_mosaic", "closed_from"),
    [(8, 2, 4, 1), (8, 4, 2, 3), (8, 2, 0, 2), (8, 2, 8, 0), (4, 1, 1, 1)],
)
def test_mosaics_close_after_the_same_share_of_the_epochs_as_the_students(
    epochs: int,
    amplifier_epochs: int,
    close_mosaic: int,
    closed_from: int,
    checkpoint: Callable[..., Path],
    tiny_data: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The student's `close_mosaic`, as it is, closed the mosaics of a short amplifier at its first epoch."""
    monkeypatch.setattr("ds2d2_yolo.bridge.models.amplifier_store.amplifier_folder", lambda: tmp_path)
    monkeypatch.setattr(obtain_amplifier, "teacher_map", lambda *_: (0.1, 0.1))
    mosaics, warmups = [], []
    original = amplifier_trainer.AmplifierTrainer.save_model

    def look(self: Any) -> Any:
        mosaics.append(self.train_loader.dataset.transforms.transforms[0].transforms[0].p)
        warmups.append(self.args.warmup_epochs)
        return original(self)

    monkeypatch.setattr(amplifier_trainer.AmplifierTrainer, "save_model", look)
    keys: dict[str, Any] = {"imgsz": 96, "batch": 4, "device": "cpu", "mosaic": 0.75, "close_mosaic": close_mosaic}
    keys |= {"epochs": epochs, "amplifier_epochs": amplifier_epochs, "warmup_epochs": 2.0}
    amplify(checkpoint("yolov8n-obb.yaml"), tiny_data("obb"), **keys)
    assert mosaics == [0.75] * closed_from + [0.0] * (amplifier_epochs - closed_from)
    assert set(warmups) == {2.0 * amplifier_epochs / epochs}


def test_experiment_trackers_are_told_nothing(
    obtain: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorBoard's writer, one for the whole process, is that of the student's run around this training."""
    tracked_events: list[str] = []

    def integrate(instance: Any) -> None:
        for event in instance.callbacks:
            instance.callbacks[event].append(lambda _, e=event: tracked_events.append(e))

    monkeypatch.setattr(callbacks, "add_integration_callbacks", integrate)
    monkeypatch.setattr(obtain_amplifier, "teacher_map", lambda *_: (0.1, 0.1))  # validates by itself
    obtain(tmp_path)
    assert not tracked_events
