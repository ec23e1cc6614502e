"""The teacher's detections as labels, and the arm that trains on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ultralytics import YOLO
from ultralytics.cfg import get_cfg
from ultralytics.data import build_yolo_dataset
from ultralytics.data.utils import check_det_dataset

from ds2d2_yolo.bridge.training.compared.notes import Notes
from ds2d2_yolo.bridge.training.compared.subjects import identify
from ds2d2_yolo.bridge.training.compared.train_arm import train_arm
from ds2d2_yolo.bridge.training.unlabelled.pseudo_labels import PseudoLabels, write_pseudo_labels
from ds2d2_yolo.errors import BadUseError
from tests.helpers.settings import TINY
from tests.helpers.trainers import PAIRS

SETTINGS = {"unlabelled": "rest", "unlabelled_share": 0.5, "unlabelled_conf": 0.5}
KEYS = {**TINY, "fraction": 0.5}


@pytest.fixture
def written(
    tiny_data: Callable[[str], Path], detecting: Callable[..., Path], tmp_path: Path
) -> Callable[[str], tuple[Path, PseudoLabels]]:
    """The teacher of a task and its pseudo-labels on the second half of the training images."""

    def write(task: str) -> tuple[Path, PseudoLabels]:
        teacher = detecting(PAIRS[task][0], tmp_path / "teacher")
        return teacher, write_pseudo_labels(str(teacher), str(tiny_data(task)), KEYS, SETTINGS, tmp_path / "labels")

    return write


@pytest.mark.parametrize("task", ["obb", "detect"])
def test_labels_are_the_detections(
    task: str, written: Callable[[str], tuple[Path, PseudoLabels]], tiny_data: Callable[[str], Path], unhurried: None
) -> None:
    teacher, labels = written(task)
    originals = [tiny_data(task).parent / "images" / "train" / f"{i}.png" for i in range(4, 8)]
    assert labels.number == 4
    images = sorted(labels.images.iterdir())
    assert [image.read_bytes() for image in images] == [image.read_bytes() for image in originals]
    total = 0
    for image in images:
        rows = np.loadtxt(labels.images.parent / "labels" / f"{image.stem}.txt", ndmin=2)
        (result,) = YOLO(str(teacher)).predict(str(image), conf=0.5, iou=0.7, max_det=1000, imgsz=96, verbose=False)
        detections = result.obb if task == "obb" else result.boxes
        assert len(rows) == len(detections) > 0
        assert rows[:, 0].tolist() == detections.cls.tolist()
        coordinates = detections.xyxyxyxyn.flatten(1) if task == "obb" else detections.xywhn
        np.testing.assert_allclose(rows[:, 1:], coordinates.clamp(0, 1).numpy(), atol=1e-6)
        total += len(rows)
    assert labels.boxes == total


def test_labels_are_those_of_the_size_that_the_teacher_sees(
    tiny_data: Callable[[str], Path], detecting: Callable[..., Path], tmp_path: Path, unhurried: None
) -> None:
    teacher, folder = str(detecting("yolov8s-obb.yaml", tmp_path / "teacher")), tmp_path / "labels"
    labels = write_pseudo_labels(teacher, str(tiny_data("obb")), KEYS, {**SETTINGS, "teacher_imgsz": 192}, folder)
    options = {"imgsz": 192, "conf": 0.5, "iou": 0.7, "max_det": 1000, "verbose": False, "device": "cpu"}
    images = sorted(labels.images.iterdir())
    assert labels.boxes == sum(len(YOLO(teacher).predict(str(image), **options)[0].obb) for image in images) > 0


def test_the_folder_is_a_data_set_of_ultralytics(written: Callable[[str], tuple[Path, PseudoLabels]]) -> None:
    _, labels = written("obb")
    data = check_det_dataset(str(labels.file))
    dataset = build_yolo_dataset(get_cfg(overrides={"imgsz": 96, "task": "obb"}), data["train"], 2, data)
    assert len(dataset) == labels.number
    assert 0 < sum(len(label["cls"]) for label in dataset.labels) <= labels.boxes, "all files are taken"
    assert data["names"] == {0: "red", 1: "green"}


def test_classes_that_the_data_lack_are_left_out(
    tiny_data: Callable[[str], Path], checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """The teacher's class 0 is unknown, its class 1 is the data's class 0."""
    from tests.helpers.detecting import write_detecting_checkpoint

    untrained, teacher = checkpoint("yolov8s.yaml", names=("blue", "red")), tmp_path / "other.pt"
    write_detecting_checkpoint(untrained, tiny_data("detect"), "detect", teacher)
    labels = write_pseudo_labels(str(teacher), str(tiny_data("detect")), KEYS, SETTINGS, tmp_path / "labels")
    rows = [row for file in (tmp_path / "labels" / "labels").glob("*.txt") for row in file.read_text().splitlines()]
    assert len(rows) == labels.boxes > 0
    assert {row.split()[0] for row in rows} == {"0"}


def test_no_images_are_refused(
    tiny_data: Callable[[str], Path], checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    teacher, data = str(checkpoint("yolov8s.yaml")), str(tiny_data("detect"))
    with pytest.raises(BadUseError, match="pseudo-labels need unlabelled images"):
        write_pseudo_labels(teacher, data, KEYS, {**SETTINGS, "unlabelled": False}, tmp_path)
    stranger = str(checkpoint("yolov8s.yaml", names=("ship", "plane")))
    with pytest.raises(BadUseError, match="the teacher's detections are no labels of these data"):
        write_pseudo_labels(stranger, data, KEYS, SETTINGS, tmp_path)


@pytest.mark.parametrize("task", ["obb", pytest.param("detect", marks=pytest.mark.slow)])
def test_arms_train_the_same_steps_on_the_same_labelled_images(
    task: str, written: Callable[[str], tuple[Path, PseudoLabels]], tiny_data: Callable[[str], Path], tmp_path: Path
) -> None:
    teacher, labels = written(task)
    student = PAIRS[task][1]
    subjects = asdict(identify(str(teacher), student, str(tiny_data(task)), KEYS, False))

    def train(kind: str, batch: int, **settings: Any) -> Notes:
        folder = tmp_path / f"{kind}-{len(settings)}"
        return train_arm(kind, folder, student, {**KEYS, "batch": batch}, subjects, settings, 1)

    explicit = {"implicit": False, "gains": 1.0}
    notes = [
        train("plain", 2),
        train("ds2d2", 2, **explicit),
        train("ds2d2", 4, **explicit, unlabelled="rest"),
        train("pseudo_labels", 4, gains=0, unlabelled=str(labels.images), unlabelled_share=0.5),
    ]
    assert len({(n.initial_weights, n.first_epoch) for n in notes}) == 1
    assert [steps for n in notes for _, steps in n.epochs.values()] == [2] * 4
    weights = [
        YOLO(str(tmp_path / folder / "weights" / "last.pt")).model.state_dict()
        for folder in ("plain-0", "ds2d2-2", "ds2d2-3", "pseudo_labels-3")
    ]
    key = next(k for k in weights[0] if k.endswith("conv.weight"))
    assert len({w[key].sum().item() for w in weights}) == 4, "each arm is another training"
    assert all(torch.isfinite(w[key]).all() for w in weights)
