"""A probe is prepared as a run is: adapters of an unfinished run, images without augmentation, clear refusals."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ds2d2_yolo import DS2D2Trainer
from ds2d2_yolo.bridge.distillation.probing.probe import Prober
from ds2d2_yolo.bridge.models.adapters import get_adapters
from ds2d2_yolo.bridge.models.loading import load_student
from ds2d2_yolo.bridge.training.probed_run import probe
from ds2d2_yolo.errors import BadUseError

SIZES: dict[str, Any] = {"images": 5, "imgsz": 96, "batch": 2}


class Cut(Exception):
    """Stands for a kill right after an epoch was saved."""


def cut(_: Any) -> None:
    raise Cut


def test_an_unfinished_run_lends_its_adapters(
    tiny_trainer: Callable[..., DS2D2Trainer], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = tiny_trainer("obb", imhi=0, epochs=2)
    trainer.add_callback("on_model_save", cut)
    with pytest.raises(Cut):
        trainer.train()
    probers = []
    measure = Prober.measure

    def watched(prober: Prober, batches: Any) -> Any:
        probers.append(prober)
        return measure(prober, batches)

    monkeypatch.setattr(Prober, "measure", watched)
    teacher, data = str(trainer.run.teacher.path), str(trainer.args.data)
    with caplog.at_level(logging.INFO):
        result = probe(teacher, str(trainer.last), data, device="cpu", **SIZES)
    assert result.images == 4, "the last incomplete batch is left out"
    assert set(result.gradient) == {"task", "exlo", "exhi", "imfu"}
    assert any("imhi is left out" in r.getMessage() for r in caplog.records)
    assert not any("they are random" in r.getMessage() for r in caplog.records)
    stored = get_adapters(load_student(str(trainer.last)).model)
    assert stored is not None
    used = probers[0].distiller.adapters.state_dict()
    assert all((used[k] == v.float()).all() for k, v in stored.state_dict().items())
    with pytest.raises(BadUseError, match="adapters for another teacher or other levels"):
        probe(teacher, str(trainer.last), data, device="cpu", levels=[8], **SIZES)
    assert probe(teacher, "yolov8n-obb.yaml", data, device="cpu", fraction=0.25, **SIZES).images == 2, "two of eight"


def test_bad_use_is_refused(checkpoint: Callable[..., Path], tiny_data: Callable[[str], Path]) -> None:
    models_and_data = str(checkpoint("yolov8s.yaml")), "yolov8n.yaml", str(tiny_data("detect"))
    with pytest.raises(BadUseError, match="at least 1"):
        probe(*models_and_data, images=0)
    with pytest.raises(BadUseError, match="no term is on"):
        probe(*models_and_data, gains=0)
    with pytest.raises(BadUseError, match="did you mean 'weight_map'"):
        probe(*models_and_data, weight_mp="score")


def test_teacher_sees_more(checkpoint: Callable[..., Path], tiny_data: Callable[[str], Path]) -> None:
    models_and_data = str(checkpoint("yolov8s.yaml")), "yolov8n.yaml", str(tiny_data("detect"))
    result = probe(*models_and_data, device="cpu", **{**SIZES, "imgsz": 64}, teacher_imgsz=128)
    assert result.strides == (8.0, 16.0)
    assert result.images == 4
    with pytest.raises(BadUseError, match="give imgsz=64 teacher_imgsz=128"):
        probe(*models_and_data, device="cpu", **{**SIZES, "imgsz": 50}, teacher_imgsz=100)
