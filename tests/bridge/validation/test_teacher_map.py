"""The teacher's own validation: equal to Ultralytics', on the right classes, and without a trace."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ultralytics import YOLO
from ultralytics.data import build_yolo_dataset
from ultralytics.data.utils import check_det_dataset, load_dataset_cache_file

from ds2d2_yolo.bridge.data.class_map import class_names, match_classes
from ds2d2_yolo.bridge.data.dataset import load_data
from ds2d2_yolo.bridge.data.images import list_images
from ds2d2_yolo.bridge.models.teacher import load_teacher, state_hash
from ds2d2_yolo.bridge.validation.teacher_map import teacher_map
from tests.helpers.taught import CONF, NAMES, SIZE, rename, settings, write_taught

pytestmark = pytest.mark.usefixtures("unhurried")


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path]]:
    """A teacher and a data set that it knows, of a task, written once."""
    made: dict[str, tuple[Path, Path]] = {}

    def get(task: str) -> tuple[Path, Path]:
        if task not in made:
            made[task] = write_taught(tmp_path_factory.mktemp(f"taught-{task}"), task)
        return made[task]

    return get


def measure(teacher: Path, task: str, data: Path, batches: int | None = None, **keys: Any) -> tuple[float, float]:
    """Return `teacher_map` of files."""
    loaded = load_teacher(str(teacher), task)
    args = settings(task, data, **keys)
    checked = check_det_dataset(data)
    return teacher_map(loaded, checked, args, match_classes(loaded.names, class_names(checked["names"])), batches)


def plain(teacher: Path, data: Path) -> tuple[float, float]:
    """Return what Ultralytics alone measures."""
    keys = {"data": str(data), "imgsz": SIZE, "batch": 4, "conf": CONF, "device": "cpu", "plots": False}
    box_metrics = YOLO(teacher).val(**keys, verbose=False).box
    return float(box_metrics.map50), float(box_metrics.map)


@pytest.mark.parametrize("task", ["obb", "detect"])
def test_equals_ultralytics_own(
    task: str, taught: Callable[[str], tuple[Path, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    teacher, data = taught(task)
    expected_map = plain(teacher, data)
    assert 0.02 < expected_map[1] < expected_map[0] < 0.9
    assert measure(teacher, task, data) == expected_map


def test_classes_go_by_name(taught: Callable[[str], tuple[Path, Path]], tmp_path: Path) -> None:
    teacher, data = taught("obb")
    expected_map = measure(teacher, "obb", data)
    turned = rename(data, ("Blue", "red", "GREEN"), tmp_path / "turned", {0: 1, 1: 2, 2: 0})
    assert measure(teacher, "obb", turned) == expected_map
    apart = rename(data, ("boat", "blue", "red"), tmp_path / "apart", {0: 2, 1: 0, 2: 1})  # green is a boat here
    without = rename(data, NAMES, tmp_path / "without", {0: 0, 2: 2})
    assert measure(teacher, "obb", apart) == plain(teacher, without) != expected_map


def test_all_classes_as_one(taught: Callable[[str], tuple[Path, Path]], tmp_path: Path) -> None:
    teacher, data = taught("obb")
    one = rename(data, NAMES, tmp_path / "one", {0: 1, 1: 1, 2: 1})
    args = settings("obb", data, single_cls=True)
    class_map = match_classes(NAMES, ("green",))
    single = {**load_data(args), "names": {0: "green"}}
    assert teacher_map(load_teacher(str(teacher), "obb"), single, args, class_map) == plain(teacher, one)


def test_label_cache_stays_the_datas_own(taught: Callable[[str], tuple[Path, Path]], tmp_path: Path) -> None:
    teacher, data = taught("obb")
    turned = rename(data, ("blue", "red", "green"), tmp_path / "turned", {0: 1, 1: 2, 2: 0})
    cache = tmp_path / "turned" / "labels" / "val.cache"
    checked = check_det_dataset(turned)
    build_yolo_dataset(settings("obb", turned), checked["val"], 4, checked, mode="val", rect=True)
    cache_bytes = cache.read_bytes()
    measure(teacher, "obb", turned)
    assert cache.read_bytes() == cache_bytes  # taken as it is
    cache.unlink()
    measure(teacher, "obb", turned)
    written_cache = load_dataset_cache_file(cache)
    expected_cache = np.load(io.BytesIO(cache_bytes), allow_pickle=True).item()
    assert written_cache["hash"] == expected_cache["hash"]
    for written_label, expected_label in zip(written_cache["labels"], expected_cache["labels"], strict=True):
        assert (written_label["cls"] == expected_label["cls"]).all()


def test_a_few_batches_are_spread_over_the_split(taught: Callable[[str], tuple[Path, Path]], tmp_path: Path) -> None:
    teacher, data = taught("obb")
    assert measure(teacher, "obb", data, batches=9, batch=3) == measure(teacher, "obb", data, batch=3)
    ends = rename(data, NAMES, tmp_path / "ends", {0: 0, 1: 1, 2: 2})
    checked = check_det_dataset(ends)
    for image in list_images(checked["val"])[3:6]:  # the batch between the first and the last
        image.unlink()
    assert measure(teacher, "obb", data, batches=2, batch=3) == plain(teacher, ends)


def test_leaves_no_trace(
    taught: Callable[[str], tuple[Path, Path]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    file, data = taught("detect")
    teacher = load_teacher(str(file), "detect")
    args = settings("detect", data)
    args_before, model_before = dict(vars(args)), (state_hash(teacher.model), repr(teacher.model))
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    monkeypatch.chdir(tmp_path)
    capfd.readouterr()
    teacher_map(teacher, check_det_dataset(data), args, match_classes(NAMES, NAMES), 1)
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []
    assert vars(args) == args_before
    assert (state_hash(teacher.model), repr(teacher.model)) == model_before
    assert not teacher.model.training
    assert not any(p.requires_grad or p.is_inference() for p in teacher.model.parameters())
    assert random.getstate() == states[0]
    assert (np.random.get_state()[1] == states[1]).all()
    assert torch.equal(torch.get_rng_state(), states[2])
