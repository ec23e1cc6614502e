"""The trained teacher that ships: its identity, what is in it, and what it detects."""

from __future__ import annotations

import hashlib
import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from ultralytics.nn.tasks import torch_safe_load

from ds2d2_yolo.bridge.data.security import safe_loading
from ds2d2_yolo.bridge.models.teacher import load_teacher
from ds2d2_yolo.config.resources import resolve_data, resolve_model
from ds2d2_yolo.demo import shipped_teacher
from ds2d2_yolo.demo.plan import SMALL, DemoSettings
from ds2d2_yolo.demo.run import Demo
from ds2d2_yolo.demo.shipped_teacher import SHA256, TEACHER, copy_shipped_teacher
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.evaluate import evaluate
from ds2d2_yolo.scenes import NAMES, write_dataset
from ds2d2_yolo.utils.progress import Task

FILE = Path(resolve_model(TEACHER))


def test_is_small_and_has_the_recorded_bytes() -> None:
    content = FILE.read_bytes()
    assert len(content) <= 8_000_000
    assert hashlib.sha256(content).hexdigest() == SHA256


def test_loads_under_the_safe_loader() -> None:
    with safe_loading(True):
        teacher = load_teacher(str(FILE))
    assert list(teacher.names) == list(NAMES)
    assert teacher.rotated


def test_holds_no_path_and_no_optimizer() -> None:
    saved = torch_safe_load(FILE)[0]
    assert (saved["epoch"], saved["optimizer"], saved["ema"]) == (-1, None, None)
    assert saved["license"].startswith("AGPL-3.0")
    assert saved["train_args"]["data"] == "aerial-scenes-teacher.yaml"
    texts = re.findall(rb"[ -~]{4,}", FILE.read_bytes())
    assert not [text for text in texts if re.search(rb"/(home|work|root|tmp|Users)/|[A-Z]:\\", text)]


def test_no_scene_of_the_demo_is_among_its_own() -> None:
    scenes = [
        yaml.safe_load(Path(resolve_data(name)).read_text(encoding="utf-8"))["scenes"]
        for name in (SMALL.data, "aerial-scenes-teacher.yaml")
    ]
    assert scenes[0]["seed"] != scenes[1]["seed"]
    assert scenes[0]["imgsz"] == scenes[1]["imgsz"] == SMALL.imgsz


def test_detects_objects_in_other_scenes(tmp_path: Path) -> None:
    write_dataset(tmp_path / "scenes", train=1, val=8, seed=7, imgsz=320, workers=1)
    content = {"path": str(tmp_path / "scenes"), "train": "images/train", "val": "images/val",
               "names": dict(enumerate(NAMES))}  # fmt: skip
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    row = evaluate(FILE, str(tmp_path / "data.yaml"), imgsz=320, device="cpu", workers=0, safe=True).row("all", "all")
    assert row.map50 > 0.3


def test_the_demo_copies_it(tmp_path: Path) -> None:
    copy_shipped_teacher(tmp_path / "teacher" / "best.pt")
    assert (tmp_path / "teacher" / "best.pt").read_bytes() == FILE.read_bytes()


@pytest.mark.parametrize("spoil", [lambda file: file.write_bytes(b"other"), lambda file: file.unlink()])
def test_another_file_is_refused(spoil: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / TEACHER
    file.write_bytes(FILE.read_bytes())
    spoil(file)
    monkeypatch.setattr(shipped_teacher, "resolve_model", lambda name: str(file))
    with pytest.raises(DS2D2Error, match="reinstall"):
        copy_shipped_teacher(tmp_path / "copy.pt")
    assert not (tmp_path / "copy.pt").exists()


def test_data_of_the_user_get_a_teacher_of_their_own(tiny_data: Any, tmp_path: Path) -> None:
    settings = DemoSettings.of({"data": str(tiny_data("obb")), "project": str(tmp_path), "device": "cpu"}, "demo")
    demo = Demo(replace(SMALL, verdict="measured on the scenes"), settings)
    assert (SMALL.shipped, demo.plan.shipped) == (True, False)
    assert "scenes" not in demo.plan.verdict
    demo.prepare(Task("data", None, io.StringIO()))
    assert not demo.trainings.safe
