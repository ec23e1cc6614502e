"""`val` and `evaluate`: rows, files, table."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import pytest
from ultralytics.models.yolo.detect import val as detect_val
from ultralytics.models.yolo.obb import val as obb_val
from ultralytics.utils.plotting import plot_images

from ds2d2_yolo.errors import BadUseError
from ds2d2_yolo.evaluate import GroupMetrics, evaluate, val
from ds2d2_yolo.evaluate.table import table
from ds2d2_yolo.evaluate.writing import draw, write_csv

QUICK: dict[str, Any] = {"imgsz": 96, "device": "cpu", "workers": 0, "verbose": False, "batch": 8}
ROWS = (
    GroupMetrics("all", "all", 3, 2, 0.5, 0.25, 1.0),
    GroupMetrics("size", "0-16", 0, 0, math.nan, math.nan, math.nan),
)


def files(folder: Path) -> set[str]:
    return {p.name for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("task", ["detect", "obb"])
def test_val_writes_table_facts_and_plot(
    task: str,
    tiny_data: Callable[[str], Path],
    checkpoint: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (detect_val, obb_val):  # in a thread of its own a picture may be there later
        monkeypatch.setattr(module, "plot_images", partial(plot_images, threaded=False))
    model = checkpoint("yolov8n-obb.yaml" if task == "obb" else "yolov8n.yaml")
    done = val(model=model, data=tiny_data(task), project=str(tmp_path), name="run", square=1.1, **QUICK)
    assert done.save_dir == tmp_path / "run"
    assert {"val.csv", "val.json", "val.png", "confusion_matrix.png", "val_batch0_pred.jpg"} <= files(done.save_dir)
    with (done.save_dir / "val.csv").open(encoding="utf-8") as text:
        read = list(csv.DictReader(text))
    assert [r["group"] for r in read] == [r.group for r in done.rows]
    for line, row in zip(read, done.rows, strict=True):
        for key, value in asdict(row).items():
            assert line[key] == ("" if isinstance(value, float) and math.isnan(value) else str(value))
    facts = json.loads((done.save_dir / "val.json").read_text(encoding="utf-8"))
    assert (facts["square"], facts["task"], facts["imgsz"]) == (1.1, task, 96)
    assert facts["rows"][0] == asdict(done.rows[0])
    assert "NaN" not in (done.save_dir / "val.json").read_text(encoding="utf-8")
    kinds = ["all", "size", "crowding", "orientation", "class"]
    assert list(dict.fromkeys(r.by for r in done.rows)) == kinds
    orientations = {"obb": "0 deg", "detect": "wide"}
    assert done.row("orientation", orientations[task]).by == "orientation"
    with pytest.raises(KeyError, match="no group '17' by 'size'"):
        done.row("size", "17")


def test_evaluate_leaves_no_file(
    tiny_data: Callable[[str], Path], checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = checkpoint("yolov8n-obb.yaml")
    beside = files(model.parent)
    done = evaluate(model, tiny_data("obb"), **QUICK)
    assert done.save_dir is None
    assert done.rows[0].objects == 32
    assert not files(tmp_path)
    assert files(model.parent) == beside
    saved = evaluate(model, tiny_data("obb"), save_dir=tmp_path / "here", **QUICK)
    assert files(tmp_path / "here") == {"val.csv", "val.json"}
    assert str(saved) == str(done)


def test_the_model_is_needed() -> None:
    with pytest.raises(BadUseError, match="model= missing"):
        val(data="data.yaml")


def test_a_group_without_objects_has_no_number(tmp_path: Path) -> None:
    lines = table(ROWS).splitlines()
    assert lines[2:] == [
        "| all  | all   |      3 |       2 | 0.500 |    0.250 |  1.000 |",
        "| size | 0-16  |      0 |       0 |     - |        - |      - |",
    ]
    write_csv(tmp_path / "val.csv", ROWS)
    assert (tmp_path / "val.csv").read_text(encoding="utf-8").splitlines() == [
        "by,group,images,objects,map50,map50_95,recall", "all,all,3,2,0.5,0.25,1.0", "size,0-16,0,0,,,",
    ]  # fmt: skip


def test_the_plot_has_a_bar_for_each_number(tmp_path: Path) -> None:
    full = (*ROWS, GroupMetrics("size", "16+", 3, 2, 1.0, 0.9, 1.0))
    draw(tmp_path / "empty.png", ROWS)
    draw(tmp_path / "full.png", full)
    empty, drawn = (cv2.imread(str(tmp_path / f"{n}.png")) for n in ("empty", "full"))
    assert empty.shape == drawn.shape
    blue = [(abs(i.astype(int) - (180, 119, 31)).sum(2) < 5).mean() for i in (empty, drawn)]
    assert blue[1] > blue[0] + 0.05
