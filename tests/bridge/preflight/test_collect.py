"""The pre-flight: its facts are those of the run, and it leaves no trace in it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ultralytics import YOLO
from ultralytics.utils.patches import torch_load

from ds2d2_yolo.bridge.data.class_map import match_classes
from ds2d2_yolo.bridge.models.adapters import attach_adapters, make_adapters
from ds2d2_yolo.bridge.models.amplifier_store import amplifier_folder
from ds2d2_yolo.bridge.models.teacher import load_teacher, state_hash
from ds2d2_yolo.bridge.preflight import collect as module
from ds2d2_yolo.bridge.preflight.collect import MIN_TEACHER_MAP, collect_report, report_files
from ds2d2_yolo.bridge.training.setup.run_setup import write_files
from ds2d2_yolo.errors import BadUseError
from ds2d2_yolo.report.facts import Layer, LevelFacts
from ds2d2_yolo.report.text import render
from tests.helpers.runs import report_of, student_of
from tests.helpers.settings import OFF

Trainer = Callable[..., Any]


@pytest.fixture
def fine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the untrained teacher pass for a trained one."""
    monkeypatch.setattr(module, "teacher_map", lambda *_: (0.5, 0.25))


@pytest.mark.usefixtures("fine")
def test_facts_of_a_pair(tiny_trainer: Trainer, checkpoint: Callable[..., Path]) -> None:
    pair = {"model": "yolov8n-obb.yaml", "teacher": str(checkpoint("yolov8s-obb.yaml"))}
    trainer = tiny_trainer("obb", epochs=8, freeze=1, **pair)
    report = report_of(trainer)
    assert (report.run.task, report.run.imgsz, report.run.batch, report.run.epochs) == ("obb", 96, 4, 8)
    teacher, student = trainer.run.teacher.model, YOLO("yolov8n-obb.yaml").model
    assert report.teacher.sha256 == trainer.run.teacher.sha256
    assert report.teacher.parameters == report.parameters.teacher == sum(p.numel() for p in teacher.parameters())
    assert (report.student.source, report.student.sha256) == ("yolov8n-obb.yaml", None)
    assert report.teacher.gflops is not None
    assert report.student.gflops is not None
    assert report.teacher.gflops > 3 * report.student.gflops > 0
    assert report.levels == (
        LevelFacts(8, Layer(15, "C2f", (64, 12, 12)), Layer(15, "C2f", (128, 12, 12)), (128, 64, 1, 1)),
        LevelFacts(16, Layer(18, "C2f", (128, 6, 6)), Layer(18, "C2f", (256, 6, 6)), (256, 128, 1, 1)),
        LevelFacts(32, Layer(21, "C2f", (256, 3, 3)), Layer(21, "C2f", (512, 3, 3)), (512, 256, 1, 1)),
    )
    assert report.parameters.adapters == 128 * 64 + 256 * 128 + 512 * 256
    frozen = sum(p.numel() for p in student.model[0].parameters()) + 16  # and the weights of the distribution's mean
    assert report.parameters.student_frozen == frozen
    assert report.parameters.student + frozen == report.student.parameters
    assert report.parameters.amplifier > 0
    assert report.memory is not None
    assert report.memory.activations > report.memory.measuring > 0
    assert report.warnings == ()


def test_an_untrained_teacher_is_named(tiny_trainer: Trainer) -> None:
    report = report_of(tiny_trainer("obb"))
    assert report.quality.map50 is not None
    assert report.quality.map50 < MIN_TEACHER_MAP
    assert [w for w in report.warnings if w.startswith("the teacher does not look trained on these data: ")]


@pytest.mark.parametrize("map50", [MIN_TEACHER_MAP, 0.049])
def test_the_floor_of_the_teacher(map50: float, tiny_trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "teacher_map", lambda *_: (map50, 0.0))
    warned = any("does not look trained" in w for w in report_of(tiny_trainer("obb")).warnings)
    assert warned == (map50 != MIN_TEACHER_MAP)


def snapshot(trainer: Any, student: Any) -> list[Any]:
    models = (student, trainer.run.teacher.model)
    return [
        *(state_hash(m) for m in models),
        [
            (m.training, type(m).__name__, len(m._forward_pre_hooks), sorted(m.__dict__))
            for x in models
            for m in x.modules()
        ],
        [p.requires_grad for x in models for p in x.parameters()],
        deepcopy(vars(trainer.args)),
        sorted(p.name for p in trainer.save_dir.rglob("*")),
        random.getstate(),
        np.random.get_state()[1].tolist(),
        torch.get_rng_state().tolist(),
        (torch.are_deterministic_algorithms_enabled(), torch.is_grad_enabled(), torch.get_num_threads()),
        amplifier_folder().exists(),
    ]


@pytest.mark.parametrize(("task", "student"), [("obb", "yolov8n-obb.yaml"), ("detect", "yolo26n.yaml")])
def test_leaves_no_trace(task: str, student: str, tiny_trainer: Trainer) -> None:
    trainer = tiny_trainer(task, model=student)
    before_plan = random.getstate(), torch.get_rng_state().tolist()
    model, attributes = trainer.model, sorted(vars(trainer))
    built = student_of(trainer)
    assert (random.getstate(), torch.get_rng_state().tolist()) == before_plan
    assert trainer.model is model
    assert sorted(vars(trainer)) == attributes
    before = snapshot(trainer, built)
    collect_report(trainer.run, built)
    assert snapshot(trainer, built) == before


def test_takes_the_student_that_is_there_already(tiny_trainer: Trainer) -> None:
    trainer = tiny_trainer("obb")
    trainer.model = trainer.get_model(cfg="yolov8n-obb.yaml", verbose=False)
    state = trainer.model.state_dict()
    report = report_of(trainer)
    assert report.student.parameters == sum(p.numel() for p in trainer.model.parameters())
    assert all(torch.equal(v, state[k]) for k, v in trainer.model.state_dict().items())


@pytest.mark.usefixtures("fine")
def test_hash_of_a_student_from_a_checkpoint(
    tiny_trainer: Trainer, checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    file = str(checkpoint("yolov8n-obb.yaml"))
    checkpoint_sha256 = load_teacher(file, "obb").sha256
    unfinished = torch_load(file)
    attach_adapters(unfinished["model"], make_adapters([4], [8], 0))
    torch.save(unfinished, tmp_path / "unfinished.pt")
    for keys, sha256 in (
        ({"model": str(tmp_path / "unfinished.pt")}, checkpoint_sha256),
        ({"model": file}, checkpoint_sha256),
        ({"model": file, "pretrained": False}, None),
        ({"pretrained": file}, checkpoint_sha256),
    ):
        student = report_of(tiny_trainer("obb", **keys)).student
        assert student.sha256 == sha256
        assert keys.get("model", file) in student.source


@pytest.mark.usefixtures("fine")
def test_levels_that_are_left_out(tiny_trainer: Trainer, checkpoint: Callable[..., Path]) -> None:
    keys = {"teacher": str(checkpoint("yolov8s-p6.yaml")), "imgsz": 128, "levels": [8, 16], "imhi": 0}
    report = report_of(tiny_trainer("detect", **keys))
    assert [level.stride for level in report.levels] == [8, 16]
    assert report.levels_off == ("stride 64: only the teacher has it", "stride 32: not in levels=[8, 16]")


def test_models_that_share_no_level_end_the_run(tiny_trainer: Trainer) -> None:
    trainer = tiny_trainer("obb")
    run = replace(trainer.run, settings=replace(trainer.run.settings, levels=[64]))
    with pytest.raises(BadUseError, match="levels="):
        collect_report(run, student_of(trainer))


def test_what_fails_becomes_a_warning(tiny_trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("out of luck\nand more")

    monkeypatch.setattr(module, "get_flops", lambda *_: 0.0)
    monkeypatch.setattr(module, "teacher_map", fail)
    monkeypatch.setattr(module, "step_bytes", fail)
    report = report_of(tiny_trainer("obb"))
    assert (report.teacher.gflops, report.student.gflops, report.memory, report.quality.map50) == (None,) * 4
    assert len(report.warnings) == 4
    assert "the teacher's mAP could not be found: RuntimeError: out of luck" in report.warnings
    assert "the expected memory could not be found: RuntimeError: out of luck" in report.warnings
    assert "not known" in render(report)


def test_bad_use_is_no_warning(tiny_trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise BadUseError("no such file")

    monkeypatch.setattr(module, "teacher_map", refuse)
    with pytest.raises(BadUseError, match="no such file"):
        report_of(tiny_trainer("obb"))


@pytest.mark.usefixtures("fine")
def test_classes(tiny_trainer: Trainer) -> None:
    trainer = tiny_trainer("obb", imhi=0)
    data_classes = list(trainer.run.class_map.data)
    same, part, none = (
        collect_report(replace(trainer.run, class_map=match_classes(names, data_classes)), student_of(trainer))
        for names in (data_classes[::-1], ["red", "blue"], ["blue", "grey"])
    )
    assert same.classes.shared == (*part.classes.shared, "green") == ("red", "green")
    assert same.classes.meaning == "the implicit stream compares all of them"
    assert part.classes.meaning == "the implicit stream compares 1 class, the explicit stream needs none"
    assert none.classes.shared == ()
    assert "the explicit stream alone" in none.classes.meaning
    assert none.quality.map50 is None
    assert any("share no class" in w for w in none.warnings)


@pytest.mark.usefixtures("fine")
def test_without_terms_nothing_is_tapped(tiny_trainer: Trainer) -> None:
    report = report_of(tiny_trainer("obb", **OFF))
    assert report.levels == ()
    assert (report.parameters.adapters, report.parameters.amplifier) == (0, 0)
    assert "no term is on: this is a plain training" in report.warnings


@pytest.mark.usefixtures("fine")
def test_files(tiny_trainer: Trainer, tmp_path: Path) -> None:
    report = report_of(tiny_trainer("obb"))
    folder = tmp_path / "there"
    folder.mkdir()
    (folder / "preflight.json").write_text("old", encoding="utf-8")
    write_files(report_files(report), folder)
    assert sorted(p.name for p in folder.iterdir()) == ["preflight.json", "preflight.txt"]
    facts = json.loads((folder / "preflight.json").read_text(encoding="utf-8"))
    assert facts["memory"]["total"] == report.memory.total  # type: ignore[union-attr]
    assert facts["levels"][0]["student"]["shape"] == [16, 12, 12]
    assert facts == json.loads(json.dumps(report.as_dict()))
    assert (folder / "preflight.txt").read_text(encoding="utf-8") == render(report) + "\n"
