"""What several machines have to agree on before they train."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from torch import distributed as dist

from ds2d2_yolo import DS2D2Trainer
from ds2d2_yolo.bridge.training.machines.inputs import compare_machines, describe_refusal, run_inputs
from ds2d2_yolo.bridge.training.machines.store import INPUTS, MachineStore
from ds2d2_yolo.errors import BadUseError

INPUT = {"torch": "2.15", "classes": "red, green", "training images": "8", "contents of the training data": "ab12"}


def report(machine: int, **changed: str) -> dict[str, Any]:
    return {"machine": f"machine {machine} (host{machine})", "inputs": {**INPUT, **changed}}


def test_equal_inputs_pass_and_a_rank_without_any() -> None:
    assert describe_refusal([report(0), {"machine": "machine 0 (host0)", "inputs": {}}, report(1)]) is None


def test_names_the_machines_and_what_differs() -> None:
    refusal = describe_refusal([report(0), report(1, torch="2.14"), report(2)])
    assert refusal is not None
    assert "torch: 2.15 on machine 0 (host0) and machine 2 (host2), 2.14 on machine 1 (host1)" in refusal
    assert "classes" not in refusal
    assert "\n" not in refusal


def test_other_images_are_named_without_the_hash_that_follows_from_them() -> None:
    fewer = {"training images": "6", "contents of the training data": "cd34"}
    refusal = describe_refusal([report(0), report(1, **fewer)])
    assert refusal is not None
    assert "training images: 8 on machine 0 (host0), 6 on machine 1 (host1)" in refusal
    assert "ab12" not in refusal
    contents_refusal = describe_refusal([report(0), report(1, **{"contents of the training data": "cd34"})])
    assert contents_refusal is not None
    assert "ab12 on machine 0 (host0), cd34 on machine 1 (host1)" in contents_refusal


def test_long_values_are_shortened() -> None:
    refusal = describe_refusal([report(0, classes="a" * 500), report(1)])
    assert refusal is not None
    assert len(refusal) < 300


def test_errors_come_before_differences_and_are_named_once_for_each_machine() -> None:
    failed = {"machine": "machine 1 (host1)", "error": "data=d.yaml does not exist"}
    assert (
        describe_refusal([report(0, torch="2.14"), failed, failed]) == "machine 1 (host1): data=d.yaml does not exist"
    )


@pytest.fixture
def moved_copy(tiny_data: Callable[[str], Path], tmp_path: Path) -> Path:
    """The tiny data at another path."""
    folder = tmp_path / "other mount"
    shutil.copytree(tiny_data("obb").parent, folder)
    yaml = folder / "data.yaml"
    text = yaml.read_text(encoding="utf-8")
    yaml.write_text(text.replace(tiny_data("obb").parent.as_posix(), folder.as_posix()), encoding="utf-8")
    return yaml


def test_inputs_do_not_depend_on_paths_but_on_contents(
    tiny_trainer: Callable[..., DS2D2Trainer], moved_copy: Path, tmp_path: Path
) -> None:
    run = tiny_trainer("obb", imhi=0).run
    settings = {"data": str(moved_copy), "project": str(tmp_path / "elsewhere"), "name": "b", "workers": 3, "imhi": 0}
    assert run_inputs(tiny_trainer("obb", **settings).run) == run_inputs(run)
    image = next((moved_copy.parent / "images" / "train").glob("*.png"))
    label = next((moved_copy.parent / "labels" / "val").glob("*.txt"))
    image.unlink()
    label.write_text(label.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    other_inputs = run_inputs(tiny_trainer("obb", **{**settings, "imgsz": 64, "exlo": 2.0}).run)
    changed = {k for k, v in run_inputs(run).items() if other_inputs[k] != v}
    assert changed == {
        "training images", "contents of the training data", "contents of the validation data", "imgsz=", "exlo=",
    }  # fmt: skip

    store = MachineStore(dist.HashStore(), 0, 1, timedelta(seconds=20))
    compare_machines(run, store)
    assert store.compared
    shared_store = dist.HashStore()
    MachineStore(shared_store, 1, 2)._write(f"{INPUTS}/1", {"machine": "machine 1 (b)", "inputs": other_inputs})
    MachineStore(shared_store, 1, 2)._write(f"{INPUTS}/done/1", None)
    with pytest.raises(BadUseError, match=r"training images: 8 on machine 0 \(.*\), 7 on machine 1 \(b\)"):
        compare_machines(run, MachineStore(shared_store, 0, 2, timedelta(seconds=20)))


def test_a_resumed_run_takes_the_student_of_rank_0(tiny_trainer: Callable[..., DS2D2Trainer]) -> None:
    run = tiny_trainer("obb", imhi=0, model="yolov8n-obb.yaml").run
    assert run_inputs(run)["student"] == "yolov8n-obb.yaml"
    args = run.args.__class__(**{**vars(run.args), "resume": "last.pt", "model": "last.pt"})
    assert "student" not in run_inputs(replace(run, args=args))
