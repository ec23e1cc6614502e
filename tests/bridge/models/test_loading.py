"""Models that cannot be loaded are one line, and what a training takes of a student is looked up first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ds2d2_yolo.bridge.models.loading import check_freeze, check_pretrained, load_student, load_yolo, starting_weights
from ds2d2_yolo.errors import BadUseError

Checkpoint = Callable[..., Path]


def test_a_checkpoint_is_loaded(checkpoint: Checkpoint) -> None:
    file = checkpoint("yolov8n-obb.yaml")
    assert load_yolo(str(file), "model=x").task == "obb"
    check_pretrained(str(file))
    for no_path in (True, False, None):
        check_pretrained(no_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "pretrained=.* does not exist, and Ultralytics has no release of that name"),
        (b"", "pretrained=.* cannot be read as an Ultralytics checkpoint"),
        (b"hello\n", "pretrained=.* cannot be read as an Ultralytics checkpoint"),
        (b"PK\x03\x04 cut off", "pretrained=.* cannot be read as an Ultralytics checkpoint"),
    ],
)
def test_a_broken_checkpoint_is_one_line(content: bytes | None, message: str, tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(BadUseError, match=message) as e:
        check_pretrained(file)
    assert len(str(e.value).splitlines()) == 1


def test_weights_without_a_model_are_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 1}, tmp_path / "weights.pt")
    with pytest.raises(BadUseError, match="cannot be read as an Ultralytics checkpoint"):
        check_pretrained(str(tmp_path / "weights.pt"))


@pytest.mark.parametrize(
    ("model", "pretrained", "resume", "file"),
    [
        ("yolov8n.yaml", True, False, None), ("best.pt", True, False, "best.pt"),
        ("yolov8n", True, False, "yolov8n.pt"),
        ("best.pt", False, False, None), ("yolov8n.yaml", "other.pt", False, "other.pt"),
        ("best.pt", "other.pt", False, "other.pt"), ("last.pt", False, "last.pt", "last.pt"), (None, True, False, None),
    ],
)  # fmt: skip
def test_checkpoint_that_a_student_starts_from(model: Any, pretrained: Any, resume: Any, file: str | None) -> None:
    assert starting_weights(SimpleNamespace(model=model, pretrained=pretrained, resume=resume)) == file


def test_layers_to_freeze_are_those_of_the_student(checkpoint: Checkpoint) -> None:
    student = load_student(str(checkpoint("yolov8n-obb.yaml"))).model
    for freeze in (None, 10, [], [0, 22], [10], ["22.cv2", "0.conv"]):  # layer 10 has no parameters
        check_freeze(student, freeze)
    for freeze, named in (([0, 23], "23"), (["abc"], "abc"), (["22.cv9", 1], "22.cv9"), ([0, "cv2", 99], "cv2, 99")):
        with pytest.raises(BadUseError, match=rf"the student has no layer {named}; its layers are 0 to 22"):
            check_freeze(student, freeze)
