"""Runs with unlabelled images: composition of the batches, steps, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d
from ultralytics.utils import YAML

from ds2d2_yolo import DS2D2OBBTrainer, DS2D2Trainer
from ds2d2_yolo.bridge.distillation.teacher_size import TEACHER_IMAGE
from ds2d2_yolo.bridge.upstream.arguments import ARGS_KEY
from ds2d2_yolo.errors import BadUseError
from tests.helpers.data import write_tiny_data

Trainer = Callable[..., DS2D2Trainer]
REPOSITORY = Path(__file__).resolve().parents[4]
KEYS = {"unlabelled": "rest", "fraction": 0.5, "implicit": False, "gains": 1.0}


def batches_of(trainer: DS2D2Trainer, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Train, and return the preprocessed batches."""
    batches: list[dict[str, Any]] = []
    preprocess = trainer.preprocess_batch

    def record(batch: dict[str, Any]) -> dict[str, Any]:
        batches.append(preprocess(batch))
        return batches[-1]

    monkeypatch.setattr(trainer, "preprocess_batch", record)
    trainer.train()
    return batches


@pytest.mark.parametrize("task", ["obb", pytest.param("detect", marks=pytest.mark.slow)])
def test_labelled_images_come_as_without_unlabelled_ones(
    task: str, tiny_trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {**KEYS, "mosaic": 1.0, "close_mosaic": 0, "epochs": 2}
    mixed_batches = batches_of(tiny_trainer(task, **keys, batch=3, unlabelled_share=0.3, name="mixed"), monkeypatch)
    labelled_batches = batches_of(
        tiny_trainer(task, **{**keys, "unlabelled": None}, batch=2, name="labelled"), monkeypatch
    )
    assert len(mixed_batches) == len(labelled_batches) == 2 * 2, "an epoch shows each of the four labelled images once"
    for batch, labelled_batch in zip(mixed_batches, labelled_batches, strict=True):
        assert batch["img"].shape[0] == 3
        assert batch["labelled"].tolist() == [True, True, False]
        assert torch.equal(batch["img"][:2], labelled_batch["img"])
        for key in ("cls", "bboxes", "batch_idx"):
            assert torch.equal(batch[key], labelled_batch[key])
        assert "labelled" not in labelled_batch
    names = [Path(batch["im_file"][-1]).name for batch in mixed_batches]
    assert sorted(names) == ["4.png", "5.png", "6.png", "7.png"], "one image a batch, each of them once"


def test_teacher_sees_larger_unlabelled_images_too(tiny_trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = tiny_trainer("obb", **KEYS, batch=2, imgsz=64, teacher_imgsz=128)
    for batch in batches_of(trainer, monkeypatch):
        assert batch["labelled"].tolist() == [True, False]
        assert batch["img"].shape[2:] == (64, 64)
        assert batch[TEACHER_IMAGE].shape[2:] == (128, 128)
        torch.testing.assert_close(batch["img"], avg_pool2d(batch[TEACHER_IMAGE], 2))


@pytest.mark.slow
def test_optimizer_steps_as_with_the_labelled_part(tiny_trainer: Trainer) -> None:
    trainers = []
    for keys in ({"batch": 4, **KEYS}, {"batch": 2, **KEYS, "unlabelled": False}):
        trainer = tiny_trainer(**keys, nbs=4, name=f"batch{keys['batch']}")
        trainer.train()
        trainers.append(trainer)
    mixed_trainer, labelled_trainer = trainers
    assert len(mixed_trainer.train_loader) == len(labelled_trainer.train_loader) == 2
    assert mixed_trainer.accumulate == labelled_trainer.accumulate == 2
    assert mixed_trainer.batch_size == 4
    decay = [[group["weight_decay"] for group in t.optimizer.param_groups] for t in trainers]
    assert decay[0] == decay[1]


@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_mosaics_and_mixup_never_mix_the_kinds(
    workers: int, tmp_path: Path, tiny_trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labelled images are red, unlabelled ones are blue."""
    data = write_tiny_data(tmp_path / "data", "detect")
    archive = tmp_path / "archive"
    archive.mkdir()
    for i in range(8):
        red, blue = (np.full((96, 96, 3), i, np.uint8) for _ in range(2))
        red[..., 2], blue[..., 0] = 200, 200  # BGR
        cv2.imwrite(str(tmp_path / f"data/images/train/{i}.png"), red)
        cv2.imwrite(str(archive / f"{i}.png"), blue)
    mixing = {"mosaic": 1.0, "mixup": 0.5, "cutmix": 0.5, "copy_paste": 0.5, "close_mosaic": 1, "epochs": 2}
    trainer = tiny_trainer(
        "detect",
        data=str(data),
        unlabelled=str(archive),
        implicit=False,
        gains=1.0,
        hsv_h=0,
        hsv_s=0,
        hsv_v=0,
        **mixing,
    )
    trainer.args.workers = workers  # Ultralytics takes none on a CPU
    for batch in batches_of(trainer, monkeypatch):
        red, _, blue = batch["img"].unbind(1)
        assert (red[:2] >= blue[:2]).all()
        assert (blue[2:] >= red[2:]).all()
        assert (red[:2] > blue[:2]).any()
        assert (blue[2:] > red[2:]).any()


def test_runs_are_deterministic_and_differ_from_runs_without(tiny_trainer: Trainer) -> None:
    def weights(name: str, **keys: Any) -> dict[str, Tensor]:
        trainer = tiny_trainer(**{**KEYS, "fraction": 2, **keys}, name=name)
        trainer.train()
        return {k: v.clone() for k, v in trainer.model.state_dict().items()}

    one, other, without = weights("one"), weights("other"), weights("without", unlabelled=False)
    assert all(torch.equal(one[k], other[k]) for k in one)
    assert not all(torch.equal(one[k], without[k]) for k in one)


def test_a_run_without_has_no_second_images(tiny_trainer: Trainer) -> None:
    trainer = tiny_trainer()
    assert trainer.second_images is None
    assert trainer.run.unlabelled is None
    assert trainer.state.settings.unlabelled is None


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"unlabelled_share": 1.0}, "unlabelled_share=1.0 must be above 0 and below 1"),
        ({"unlabelled_share": 0}, "unlabelled_share=0 must be above 0 and below 1"),
        ({"unlabelled_conf": 2}, "unlabelled_conf=2"),
        ({"batch": 1}, "batch=1 with unlabelled_share=0.5 holds 1 labelled and 0 unlabelled"),
        ({"rect": True}, "rect=True gives each batch a shape"),
        ({"unlabelled": "nowhere"}, "nowhere does not exist"),
        ({"unlabelled": True}, "unlabelled=True takes the key"),
        ({"fraction": 1.0}, "leaves out none"),
        ({"unlabelled": 3}, "unlabelled=3"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(
    keys: dict[str, Any], message: str, tiny_trainer: Trainer, tmp_path: Path
) -> None:
    with pytest.raises(BadUseError, match=message) as error:
        tiny_trainer(**{**KEYS, **keys})
    assert "\n" not in str(error.value)
    assert not (tmp_path / "runs").exists()


def test_key_of_the_data_yaml_and_the_report(
    tmp_path: Path, tiny_trainer: Trainer, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_tiny_data(tmp_path / "data", "obb")
    archive = tmp_path / "data" / "archive"
    shutil.copytree(tmp_path / "data" / "images" / "val", archive)
    (archive / "0.png").write_bytes(b"no image")
    for i in range(1, 4):
        image = cv2.imread(str(archive / f"{i}.png"))
        cv2.imwrite(str(archive / f"{i}.png"), image[::-1])
    data.write_text(data.read_text() + "unlabelled: archive\n", encoding="utf-8")
    trainer = tiny_trainer(data=str(data), implicit=False, gains=1.0)
    assert [image.name for image in trainer.run.unlabelled.images] == ["1.png", "2.png", "3.png"]
    trainer.train()
    text = (trainer.save_dir / "preflight.txt").read_text(encoding="utf-8")
    flat = " ".join(text.split())
    assert "3 unlabelled images, 2 labelled and 2 unlabelled in a batch" in flat
    assert "1 of the 8 unlabelled images cannot be read and are left out" in flat
    assert "4 of the 8 unlabelled images are duplicates" in flat


def test_a_key_that_came_into_the_data_yaml_meanwhile_changes_no_resumed_run(
    tmp_path: Path, tiny_trainer: Trainer
) -> None:
    data = write_tiny_data(tmp_path / "data", "obb")
    trainer = tiny_trainer(data=str(data), implicit=False, gains=1.0, epochs=2)

    def stop(trainer: Any) -> None:
        raise KeyboardInterrupt

    trainer.add_callback("on_model_save", stop)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    image = cv2.imread(str(tmp_path / "data" / "images" / "val" / "0.png"))
    cv2.imwrite(str(tmp_path / "data" / "new.png"), image[::-1])
    data.write_text(data.read_text() + "unlabelled: new.png\n", encoding="utf-8")
    last = str(trainer.last)
    resumed = DS2D2OBBTrainer(overrides={"model": last, "resume": last})
    assert resumed.second_images is None
    assert tiny_trainer(data=str(data), implicit=False, gains=1.0, name="new").second_images is not None


def test_an_epoch_shows_the_share_beside_the_labelled_images(tiny_trainer: Trainer) -> None:
    second = tiny_trainer(**KEYS, batch=4, unlabelled_share=0.75).second_images
    assert second.all_images(30) == 120


def test_command_line_trains_with_paths_relative_to_its_folder(
    tiny_data: Callable[[str], Path], checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """Unlabelled images are named relative to the folder in which the command is typed."""
    archive = tmp_path / "archive"
    archive.mkdir()
    for i in range(3):
        cv2.imwrite(str(archive / f"{i}.png"), np.random.default_rng(i).integers(0, 255, (70, 90, 3), dtype=np.uint8))
    line = [
        sys.executable, "-m", "ds2d2_yolo", "train", f"teacher={checkpoint('yolov8s.yaml')}", "student=yolov8n.yaml",
        f"data={tiny_data('detect')}", "unlabelled=[archive/0.png,archive/*.png]", "unlabelled_share=0.25", "imgsz=96",
        "epochs=1", "batch=4", "imhi=0", "device=cpu", "plots=False", f"project={tmp_path}", "name=run",
    ]  # fmt: skip
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-2000:]
    report = json.loads((tmp_path / "run" / "preflight.json").read_text(encoding="utf-8"))["run"]["unlabelled"]
    assert (report["images"], report["batch"], report["confidence"]) == (3, [3, 1], 0.25)
    args = YAML.load(tmp_path / "run" / "args.yaml")
    stored = args[ARGS_KEY]["settings"]["unlabelled"]
    assert stored == [str(tmp_path / "archive" / "0.png"), str(tmp_path / "archive" / "*.png")]
    assert (tmp_path / "run" / "weights" / "last.pt").is_file()
    rows = (tmp_path / "run" / "results.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 2
