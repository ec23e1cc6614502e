"""What can be read off a plan: why terms are off, the gains' course, where the amplifier comes from."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ultralytics import YOLO

from ds2d2_yolo.bridge.models import amplifier_store
from ds2d2_yolo.bridge.models.amplifier import one_to_many
from ds2d2_yolo.bridge.models.amplifier_store import AmplifierCard, save_amplifier
from ds2d2_yolo.bridge.models.heads import dense_head
from ds2d2_yolo.bridge.preflight import facts as module
from ds2d2_yolo.bridge.preflight.prepared_run import PreparedRun
from ds2d2_yolo.bridge.training.obtain_amplifier import card_for
from ds2d2_yolo.config.settings import Settings
from ds2d2_yolo.errors import BadUseError
from ds2d2_yolo.report.facts import AmplifierFacts
from tests.helpers.terms import ACTIVE

Trainer = Callable[..., Any]


@pytest.mark.parametrize(
    ("settings", "off"),
    [
        ({"implicit": False}, {"imfu": "implicit=False", "imhi": "implicit=False"}),
        ({"exlo": 0.0, "gains": 2}, {"exlo": "exlo=0"}),
        ({"gains": 0.0, "exlo": 1}, {"exhi": "gains=0", "imfu": "gains=0", "imhi": "gains=0"}),
    ],
)
def test_why_terms_are_off(settings: dict[str, Any], off: dict[str, str], tiny_trainer: Trainer) -> None:
    plan = tiny_trainer("obb").run
    facts = module.gain_facts(replace(plan, settings=Settings(teacher="t.pt", **settings)))
    assert {term: why for term, why in facts.off.items() if term in ACTIVE} == off


def test_gains_and_their_course(tiny_trainer: Trainer) -> None:
    keys = {"exlo": 0.5, "imhi": 0, "gain_warmup": 2, "gain_schedule": "cosine", "gain_final": 0.1, "gain_epochs": 30}
    facts = module.gain_facts(tiny_trainer("obb", epochs=20, **keys).run)
    assert facts.fixed == {"exlo": 0.5}
    assert facts.shares == {"exhi": 0.02, "imfu": 0.5}
    assert (facts.warmup, facts.schedule, facts.final, facts.last_epoch) == (2, "cosine", 0.1, 20)


def amplifier_of(plan: PreparedRun, card: AmplifierCard, file: Path) -> Path:
    head = one_to_many(deepcopy(dense_head(plan.teacher.model, "the teacher")))
    save_amplifier(file, head.state_dict(), card)
    return file


def test_where_the_amplifier_comes_from(tiny_trainer: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(amplifier_store, "amplifier_folder", lambda: tmp_path / "kept")
    plan = tiny_trainer("obb", epochs=8).run
    card = card_for(plan.teacher, plan.data, plan.args, "haar", 2)
    plan_with_card = replace(plan, amplifier_card=card)
    facts = module.amplifier_facts(plan_with_card)
    assert (facts.state, facts.epochs, facts.share, facts.path, facts.reason) == ("to train", 2, 0.25, None, "")
    measured = {"map50": 0.5, "map50_95": 0.25, "teacher_map50": 0.6, "teacher_map50_95": 0.3}
    stored_path = amplifier_of(plan, replace(card, **measured), amplifier_store.stored_file(card))
    facts = module.amplifier_facts(plan_with_card)
    assert facts == AmplifierFacts("kept", str(stored_path), 2, 0.5, 0.25, 0.6, 0.3)
    longer = module.amplifier_facts(replace(plan, amplifier_card=replace(card, epochs=4)))
    assert (longer.state, longer.share, longer.reason) == ("to train", 0.5, "the kept one has 2 epochs")
    amplifier_path = amplifier_of(plan, card, tmp_path / "given.safetensors")
    facts = module.amplifier_facts(replace(plan_with_card, amplifier_path=amplifier_path))
    assert facts == AmplifierFacts("given", str(amplifier_path), 2)
    with pytest.raises(BadUseError, match="does not exist"):
        module.amplifier_facts(replace(plan_with_card, amplifier_path=tmp_path / "lost.safetensors"))
    off = replace(plan_with_card, settings=replace(plan.settings, imhi=0.0))
    assert module.amplifier_facts(off).reason == "imhi=0"


def test_why_the_implicit_stream_is_off_without_shared_classes(tiny_trainer: Trainer) -> None:
    plan = tiny_trainer("obb", implicit=False).run
    plan_without_classes = replace(plan, class_map=replace(plan.class_map, pairs=()))
    reasons = dict.fromkeys(("imfu", "imhi"), "teacher and data share no class")
    assert {term: why for term, why in module.gain_facts(plan_without_classes).off.items() if term in ACTIVE} == reasons
    assert module.amplifier_facts(plan_without_classes).reason == reasons["imhi"]


@pytest.mark.parametrize(("imgsz", "expected"), [(96, 96), (100, 128), (16, 32)])
def test_size_is_the_one_that_ultralytics_trains_with(imgsz: int, expected: int, tiny_trainer: Trainer) -> None:
    plan = tiny_trainer("obb", imhi=0).run
    plan.args.imgsz = imgsz
    assert plan.imgsz(YOLO("yolov8n-obb.yaml").model) == expected
