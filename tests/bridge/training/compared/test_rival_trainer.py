"""A rival's arm: it trains, is paired with the plain arm, resumes exactly, and leaves a plain student."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from ultralytics.nn.tasks import DetectionModel, OBBModel
from ultralytics.utils.patches import torch_load

from ds2d2_yolo import DS2D2Trainer
from ds2d2_yolo.bridge.models.adapters import ATTRIBUTE, make_adapters
from ds2d2_yolo.bridge.models.teacher import state_hash
from ds2d2_yolo.bridge.training.compared.notes import Notes
from ds2d2_yolo.bridge.training.compared.subjects import identify
from ds2d2_yolo.bridge.training.compared.train_arm import train_arm
from ds2d2_yolo.config.rivals import RIVALS, rival_settings
from ds2d2_yolo.errors import BadUseError
from tests.helpers.trainers import PAIRS

Train = Callable[..., tuple[Path, Notes]]


class Cut(Exception):
    """Stands for a kill."""


@pytest.fixture
def keys(tiny_settings: dict[str, Any]) -> dict[str, Any]:
    """Training settings as a comparison hands them on."""
    return {k: v for k, v in tiny_settings.items() if k not in {"project", "name", "exist_ok"}}


@pytest.fixture
def train(
    keys: dict[str, Any], tiny_data: Callable[[str], Path], checkpoint: Callable[..., Path], tmp_path: Path
) -> Train:
    """Train a rival, or the plain student, in a folder of its own."""

    def run(rival: str, task: str = "obb", name: str = "", **more: Any) -> tuple[Path, Notes]:
        teacher, student = PAIRS[task]
        subjects = asdict(identify(str(checkpoint(teacher)), student, str(tiny_data(task)), keys, False))
        folder = tmp_path / (name or f"{rival}-{task}")
        kind, settings = ("rival", rival_settings(rival, {})) if rival in RIVALS else (rival, {})
        return folder, train_arm(kind, folder, student, {**keys, **more}, subjects, settings, 1)

    return run


def weights_of(folder: Path) -> str:
    """Hash of the model in a run's last checkpoint."""
    return state_hash(torch_load(folder / "weights" / "last.pt", map_location="cpu")["model"])


@pytest.mark.parametrize("task", ["obb", pytest.param("detect", marks=pytest.mark.slow)])
def test_rivals_are_paired_with_the_plain_arm_and_end_as_plain_students(train: Train, task: str) -> None:
    runs = {name: train(name, task) for name in ("plain", *RIVALS)}
    notes = [n for _, n in runs.values()]
    assert len({(n.initial_weights, n.first_epoch) for n in notes}) == 1
    assert len({weights_of(folder) for folder, _ in runs.values()}) == 4  # each term moves the weights
    for name, (folder, _) in runs.items():
        for file in ("last.pt", "best.pt"):
            saved = torch_load(folder / "weights" / file, map_location="cpu")
            assert type(saved["model"]) is (OBBModel if task == "obb" else DetectionModel)
            assert saved["optimizer"] is None
            assert not hasattr(saved["model"], ATTRIBUTE)
        (row,) = csv.DictReader((folder / "results.csv").read_text().splitlines())
        assert name == "plain" or float(row[f"train/{name}_loss"]) > 0
        assert not [column for column in row if "exlo" in column]
        assert not list(folder.glob("preflight.*")), "DS2D2's report would describe a training without distillation"
        assert sorted(f.name for f in (folder / "weights").iterdir()) == ["best.pt", "last.pt"]


def test_a_rival_that_was_cut_off_ends_as_an_uninterrupted_one(
    train: Train, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    original = DS2D2Trainer.save_model

    def save(self: Any) -> bool:
        saved = original(self)
        if self.epoch == 0:
            raise Cut
        return saved

    with monkeypatch.context() as patched:
        patched.setattr(DS2D2Trainer, "save_model", save)
        with pytest.raises(Cut):
            train("pkd", epochs=2, name="pkd-cut")
    checkpoint = torch_load(tmp_path / "pkd-cut" / "weights" / "last.pt", map_location="cpu")
    adapters = getattr(checkpoint["ema"], ATTRIBUTE)
    widths = [[conv.in_channels for conv in adapters], [conv.out_channels for conv in adapters]]
    for saved, new in zip(adapters, make_adapters(*widths, checkpoint["train_args"]["seed"]), strict=True):
        assert not torch.equal(saved.weight.float(), new.weight), "trained, and saved for the next part of the run"
    folder, notes = train("pkd", epochs=2, name="pkd-cut")
    assert (notes.trained, notes.sessions, sorted(notes.epochs)) == (True, 2, ["0", "1"])
    assert weights_of(folder) == weights_of(train("pkd", name="whole", epochs=2)[0])


def test_ld_refuses_heads_without_equal_distributions(
    keys: dict[str, Any], tiny_data: Callable[[str], Path], checkpoint: Callable[..., Path]
) -> None:
    data, teacher = str(tiny_data("detect")), str(checkpoint("yolov8s.yaml"))
    with pytest.raises(BadUseError, match=r"the student predicts 1 bins an edge, the teacher 16; leave that arm out"):
        identify(teacher, "yolo26n.yaml", data, keys, False, rivals=["ld"])
    assert identify(teacher, "yolo26n.yaml", data, keys, False, rivals=["pkd"]).task == "detect"
