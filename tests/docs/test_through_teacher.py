"""The teacher's head on a student's neck is G(A S), in a plain model that needs nothing of ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ultralytics import YOLO
from ultralytics.nn.tasks import torch_safe_load

from ds2d2_yolo.bridge.models.adapters import attach_adapters, make_adapters
from ds2d2_yolo.bridge.models.heads import dense_head, level_channels, raw_predictions, take_levels
from ds2d2_yolo.bridge.models.teacher import load_teacher

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], None]:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    from through_teacher import main

    return main


@pytest.fixture
def unfinished(checkpoint: Callable[..., Path], tmp_path: Path) -> Callable[[str, Path], Path]:
    """Make the last.pt of an unfinished distillation."""

    def make(yaml: str, teacher: Path, levels: int = 3) -> Path:
        saved, _ = torch_safe_load(checkpoint(yaml, seed=1))
        student = saved["model"].float()
        student.names = dict(enumerate(reversed(student.names.values())))
        del student.task  # which a trainer's model does not know of itself
        widths = [level_channels(dense_head(m, "a")) for m in (student, load_teacher(str(teacher)).model)]
        attach_adapters(student, make_adapters(*(list(w[:levels]) for w in widths), 0))
        torch.save({**saved, "model": None, "ema": student}, tmp_path / "last.pt")
        return tmp_path / "last.pt"

    return make


def test_answers_are_those_of_the_implicit_stream(
    main: Callable[[list[str]], None], unfinished: Callable[[str, Path], Path], checkpoint: Callable[..., Path],
    tmp_path: Path,
) -> None:  # fmt: skip
    teacher = checkpoint("yolov8s-obb.yaml")
    last = unfinished("yolov8n-obb.yaml", teacher)
    main([str(last), str(teacher), str(tmp_path / "through.pt")])
    combined_model: Any = YOLO(tmp_path / "through.pt").model.float().eval()
    student: Any = torch_safe_load(last)[0]["ema"].eval()
    teacher_head = take_levels(dense_head(load_teacher(str(teacher)).model, "teacher"), [0, 1, 2])
    images = torch.rand(2, 3, 96, 64)
    with torch.no_grad():
        predictions = combined_model(images)[1]
        features = student(images)[1]["feats"]
        adapted = [a(f) for a, f in zip(student.ds2d2_adapters, features, strict=True)]
        expected = raw_predictions(teacher_head, adapted)
    for key in ("scores", "boxes", "angle"):
        torch.testing.assert_close(predictions[key], expected[key], rtol=0.02, atol=0.02 * float(expected[key].std()))
    assert "ds2d2_adapters" not in combined_model._modules
    assert combined_model.names == load_teacher(str(teacher)).model.names != student.names


def test_says_what_it_cannot_do(
    main: Callable[[list[str]], None], unfinished: Callable[[str, Path], Path], checkpoint: Callable[..., Path],
    tmp_path: Path,
) -> None:  # fmt: skip
    out = str(tmp_path / "through.pt")
    with pytest.raises(SystemExit, match="holds no adapters"):
        main([str(checkpoint("yolov8n-obb.yaml")), str(checkpoint("yolov8s-obb.yaml")), out])
    teacher = checkpoint("yolo11s-obb.yaml")
    with pytest.raises(SystemExit, match="depthwise"):
        main([str(unfinished("yolov8n-obb.yaml", teacher)), str(teacher), out])
    teacher = checkpoint("yolov8s-obb.yaml")
    last = unfinished("yolov8n-obb.yaml", teacher, levels=2)
    with pytest.raises(SystemExit, match="all of them be distilled"):
        main([str(last), str(teacher), out])
    assert not Path(out).exists()
