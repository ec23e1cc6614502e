"""One arm with one seed: the same training as without being watched, paired with the other arms, and restartable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from ultralytics import YOLO
from ultralytics.nn.tasks import OBBModel
from ultralytics.utils.patches import torch_load

from ds2d2_yolo import DS2D2Trainer
from ds2d2_yolo.bridge.models.adapters import ATTRIBUTE
from ds2d2_yolo.bridge.models.teacher import state_hash
from ds2d2_yolo.bridge.training.compared import arm_trainers
from ds2d2_yolo.bridge.training.compared.arm_trainers import PlainArm
from ds2d2_yolo.bridge.training.compared.notes import Notes
from ds2d2_yolo.bridge.training.compared.subjects import Subjects, identify
from ds2d2_yolo.bridge.training.compared.train_arm import train_arm
from ds2d2_yolo.errors import BadUseError, DS2D2Error

KINDS = ("plain", "distill_model", "ds2d2")
STUDENT = "yolov8n-obb.yaml"
EXPLICIT = {"implicit": False, "gains": 1.0}


class Cut(Exception):
    """Stands for a kill."""


@pytest.fixture
def keys(tiny_settings: dict[str, Any]) -> dict[str, Any]:
    """Training settings as a comparison hands them on."""
    return {k: v for k, v in tiny_settings.items() if k not in {"project", "name", "exist_ok"}} | {"epochs": 2}


@pytest.fixture
def subjects(keys: dict[str, Any], tiny_data: Callable[[str], Path], checkpoint: Callable[..., Path]) -> Subjects:
    """Teacher and data of the runs."""
    return identify(str(checkpoint("yolov8s-obb.yaml")), STUDENT, str(tiny_data("obb")), keys, True)


@pytest.fixture
def train(keys: dict[str, Any], subjects: Subjects, tmp_path: Path) -> Callable[..., tuple[Path, Notes]]:
    """Train an arm in a folder of its own."""

    def run(kind: str, name: str | None = None, parallel: int = 1, **more: Any) -> tuple[Path, Notes]:
        folder = tmp_path / (name or kind)
        settings = EXPLICIT if kind == "ds2d2" else {}
        return folder, train_arm(kind, folder, STUDENT, {**keys, **more}, asdict(subjects), settings, parallel)

    return run


def weights_of(file: Path) -> str:
    """Hash of a checkpoint's model."""
    return state_hash(torch_load(file, map_location="cpu")["model"])


def cut_after(monkeypatch: pytest.MonkeyPatch, epoch: int) -> None:
    """Let every run end without clean-up once it has saved an epoch."""
    for trainer in (PlainArm, DS2D2Trainer):
        original = trainer.save_model

        def save(self: Any, original: Callable[[Any], bool] = original) -> bool:
            saved = original(self)
            if self.epoch == epoch:
                raise Cut
            return saved

        monkeypatch.setattr(trainer, "save_model", save)


def test_arms_of_a_seed_are_pairs_and_end_as_plain_students(train: Callable[..., tuple[Path, Notes]]) -> None:
    runs = {kind: train(kind, epochs=1) for kind in KINDS}
    notes = [n for _, n in runs.values()]
    assert len({(n.initial_weights, n.first_epoch) for n in notes}) == 1
    assert all(len(n.initial_weights) == len(n.first_epoch) == 12 for n in notes)
    assert len({weights_of(folder / "weights" / "last.pt") for folder, _ in runs.values()}) == 3  # they do differ
    for folder, n in runs.values():
        assert (n.trained, n.sessions, list(n.epochs)) == (True, 1, ["0"])
        assert n.train_seconds > 0
        assert n.step_seconds == pytest.approx(n.train_seconds / 2)  # 8 images in batches of 4
        assert 50 < n.peak_memory_mb < 50_000
        for name in ("last.pt", "best.pt"):
            saved = torch_load(folder / "weights" / name, map_location="cpu")
            assert type(saved["model"]) is OBBModel
            assert saved["optimizer"] is None
            assert not hasattr(saved["model"], ATTRIBUTE)
    _, other = train("plain", "other", epochs=1, seed=4)
    assert other.initial_weights != notes[0].initial_weights
    assert other.first_epoch != notes[0].first_epoch


@pytest.mark.parametrize("kind", ["plain", pytest.param("distill_model", marks=pytest.mark.slow)])
def test_being_watched_changes_nothing(
    train: Callable[..., tuple[Path, Notes]], keys: dict[str, Any], subjects: Subjects, tmp_path: Path, kind: str
) -> None:
    folder, _ = train(kind)
    distillation = {"distill_model": subjects.teacher} if kind == "distill_model" else {}
    YOLO(STUDENT).train(**keys, **distillation, data=subjects.data, save_dir=str(tmp_path / "upstream"), exist_ok=True)
    upstream = tmp_path / "upstream" / "weights" / "last.pt"
    assert weights_of(folder / "weights" / "last.pt") == weights_of(upstream)


@pytest.mark.parametrize("kind", ["plain", "distill_model", pytest.param("ds2d2", marks=pytest.mark.slow)])
def test_a_run_that_was_cut_off_goes_on(
    train: Callable[..., tuple[Path, Notes]], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    with monkeypatch.context() as patched:
        cut_after(patched, 0)
        with pytest.raises(Cut):
            train(kind, parallel=3)
    folder, notes = train(kind)
    assert (notes.trained, notes.sessions, notes.parallel, sorted(notes.epochs)) == (True, 2, 3, ["0", "1"])
    assert notes.initial_weights
    saved = torch_load(folder / "weights" / "last.pt", map_location="cpu")
    assert type(saved["model"]) is OBBModel
    assert len((folder / "results.csv").read_text().splitlines()) == 3


def test_a_finished_run_is_left_alone(
    train: Callable[..., tuple[Path, Notes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, notes = train("plain", epochs=1)
    before = weights_of(folder / "weights" / "last.pt")
    monkeypatch.setattr(YOLO, "train", lambda *_, **__: pytest.fail("trained again"))
    assert train("plain", epochs=1)[1] == notes
    assert weights_of(folder / "weights" / "last.pt") == before


def test_a_run_cut_off_in_its_clean_up_is_only_cleaned_up(
    train: Callable[..., tuple[Path, Notes]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def cut(_: Path) -> None:
        raise Cut

    with monkeypatch.context() as patched:
        patched.setattr(arm_trainers, "finalize_checkpoints", cut)
        with pytest.raises(Cut):
            train("distill_model", epochs=1)
    last = tmp_path / "distill_model" / "weights" / "last.pt"
    assert torch_load(last, map_location="cpu")["optimizer"] is not None
    monkeypatch.setattr(YOLO, "train", lambda *_, **__: pytest.fail("trained again"))
    train("distill_model", epochs=1)
    assert type(torch_load(last, map_location="cpu")["model"]) is OBBModel


def test_a_run_without_a_readable_checkpoint_starts_anew(
    train: Callable[..., tuple[Path, Notes]], tmp_path: Path
) -> None:
    weights = tmp_path / "plain" / "weights"
    weights.mkdir(parents=True)
    (weights / "last.pt").write_bytes(b"half a file")
    Notes(sessions=4, epochs={"7": [1.0, 1.0]}).write(tmp_path / "plain")
    _, notes = train("plain", epochs=1)
    assert (notes.sessions, list(notes.epochs)) == (1, ["0"])


def test_a_lack_of_memory_ends_the_run_instead_of_halving_the_batch(
    train: Callable[..., tuple[Path, Notes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> dict[str, Any]:
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(PlainArm, "preprocess_batch", full)
    with pytest.raises(DS2D2Error, match="no memory for batch=4"):
        train("plain")


def test_identity_is_of_contents(
    subjects: Subjects, keys: dict[str, Any], tiny_data: Callable[[str], Path], checkpoint: Callable[..., Path]
) -> None:
    data = tiny_data("obb")
    assert (data.parent / "labels" / "train.cache").is_file()  # written before runs that begin together would
    assert (data.parent / "labels" / "val.cache").is_file()
    teacher = str(checkpoint("yolov8s-obb.yaml"))
    torch.manual_seed(7)  # a YAML's random weights are no part of its identity
    assert identify(teacher, STUDENT, str(data), keys, False) == subjects
    other = identify(str(checkpoint("yolov8s-obb.yaml", seed=1)), "yolo11n-obb.yaml", str(data), keys, False)
    assert other.teacher_hash != subjects.teacher_hash
    assert other.student_hash != subjects.student_hash
    assert other.data_hash == subjects.data_hash != subjects.val_hash


def test_upstreams_distillation_wants_as_many_levels(
    keys: dict[str, Any], tiny_data: Callable[[str], Path], checkpoint: Callable[..., Path]
) -> None:
    teacher, data = str(checkpoint("yolov8s.yaml")), str(tiny_data("detect"))
    with pytest.raises(BadUseError, match=r"arm distill_model: .* leave that arm out"):
        identify(teacher, "yolov8n-p2.yaml", data, keys, True)
    assert identify(teacher, "yolov8n-p2.yaml", data, keys, False).task == "detect"


def test_sizes_that_only_some_arms_could_keep_are_refused(
    keys: dict[str, Any], tiny_data: Callable[[str], Path], checkpoint: Callable[..., Path]
) -> None:
    """A distilled student trains at multiples of its teacher's coarsest stride, a plain one at those of 32 px."""
    data, coarse, usual = str(tiny_data("detect")), str(checkpoint("yolov8n-p6.yaml")), str(checkpoint("yolov8s.yaml"))
    with pytest.raises(BadUseError, match=r"imgsz=96: the teacher's coarsest stride is 64 px, .*; give imgsz=128"):
        identify(coarse, "yolov8n.yaml", data, keys, False)
    with pytest.raises(BadUseError, match=r"multi_scale=0\.5: .*; leave it out"):
        identify(coarse, "yolov8n.yaml", data, {**keys, "imgsz": 128, "multi_scale": 0.5}, False)
    assert identify(coarse, "yolov8n.yaml", data, keys, False, mixed=False).task == "detect"
    for teacher, student, more in (
        (coarse, "yolov8n.yaml", {"imgsz": 128}),
        (coarse, "yolov8n-p6.yaml", {"multi_scale": 0.5}),
        (usual, "yolov8n.yaml", {"multi_scale": 0.5}),
    ):
        assert identify(teacher, student, data, {**keys, **more}, False).task == "detect"
