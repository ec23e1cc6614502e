"""A model whose classes have other indices than the data's is measured by their names."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from ultralytics import YOLO
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.utils import LOGGER

from ds2d2_yolo.bridge.inference.benchmark import accuracy
from ds2d2_yolo.bridge.validation.class_names import ClassNameValidator, class_warning
from ds2d2_yolo.evaluate import evaluate
from tests.helpers.validation import MODELS, QUICK, TASKS

SAME = {0: "red", 1: "green"}  # the model's


def write_data(root: Path, source: Path, names: dict[int, str], index: dict[int, int]) -> Path:
    """Write the validation split of a data set again, under other names and indices."""
    for kind in ("images", "labels"):
        (root / kind / "val").mkdir(parents=True)
        for file in (source.parent / kind / "val").glob("*.*"):
            lines = [line.split(maxsplit=1) for line in file.read_text().splitlines()] if kind == "labels" else []
            new = "\n".join(f"{index[int(c)]} {rest}" for c, rest in lines).encode() or file.read_bytes()
            (root / kind / "val" / file.name).write_bytes(new)
    yaml = root / "data.yaml"
    yaml.write_text(f"path: {root.as_posix()}\ntrain: images/val\nval: images/val\nnames: {names}\n")
    return yaml


def let_it_find(monkeypatch: pytest.MonkeyPatch, model_index: dict[int, int]) -> None:
    """Make a model find the objects, some wrongly, under its own class indices, given by the data's."""

    def keep(self: Any, batch: dict[str, Any], before: Any = DetectionValidator.preprocess) -> dict[str, Any]:
        self.batch, self.next = before(self, batch), iter(range(len(batch["im_file"])))
        return self.batch

    def find(self: Any, preds: Any) -> list[dict[str, torch.Tensor]]:
        predictions = []
        for i in islice(self.next, len(preds[0] if isinstance(preds, tuple) else preds)):
            image = self._prepare_batch(i, self.batch)
            boxes = image["bboxes"].clone()
            boxes[::3, :2] += 30
            cls = torch.tensor([float(model_index[int(c)]) for c in image["cls"]])
            conf = torch.linspace(0.9, 0.5, len(boxes))
            predictions.append({"bboxes": boxes[:, :4], "extra": boxes[:, 4:], "cls": cls, "conf": conf})
        return predictions

    monkeypatch.setattr(DetectionValidator, "preprocess", keep)
    monkeypatch.setattr(DetectionValidator, "postprocess", find)


@TASKS
def test_classes_in_another_order_are_matched_by_name(
    task: str, tiny_data: Callable[[str], Path], checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    model, source = checkpoint(MODELS[task]), tiny_data(task)
    same = write_data(tmp_path / "same", source, SAME, {0: 0, 1: 1})
    other = write_data(tmp_path / "other", source, {0: "Green", 1: "blue", 2: "red"}, {0: 2, 1: 0})
    let_it_find(monkeypatch, {0: 0, 1: 1})
    as_trained = evaluate(str(model), same, save_dir=str(tmp_path / "a"), **QUICK)
    shown = accuracy(model, task, data=str(same), imgsz=96, device="cpu")
    let_it_find(monkeypatch, {2: 0, 0: 1})
    by_name = evaluate(str(model), other, save_dir=str(tmp_path / "b"), **QUICK)
    assert 0.2 < as_trained.rows[0].map50 < 0.9
    as_trained_row, by_name_row = as_trained.rows[0], by_name.rows[0]
    assert (by_name_row.map50, by_name_row.map50_95) == pytest.approx(
        (as_trained_row.map50, as_trained_row.map50_95), abs=1e-9
    )
    assert by_name_row.objects == as_trained_row.objects == 32
    for model_name, data_name in (("red", "red"), ("green", "Green")):
        assert by_name.row("class", data_name).map50 == pytest.approx(
            as_trained.row("class", model_name).map50, abs=1e-9
        )
    assert accuracy(model, task, data=str(other), imgsz=96, device="cpu") == pytest.approx(shown, abs=1e-9)
    assert shown[0] > 0.2


@TASKS
def test_pictures_and_files_go_by_the_datas_classes(
    task: str, tiny_data: Callable[[str], Path], checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    other = write_data(tmp_path / "other", tiny_data(task), {0: "green", 1: "blue", 2: "red"}, {0: 2, 1: 0})
    let_it_find(monkeypatch, {2: 0, 0: 1})
    seen: list[ClassNameValidator] = []
    finish = ClassNameValidator.finalize_metrics
    monkeypatch.setattr(ClassNameValidator, "finalize_metrics", lambda self: (seen.append(self), finish(self))[1])
    keys = {**QUICK, "plots": True, "visualize": True, "save_json": True, "save_dir": str(tmp_path / "run")}
    evaluate(str(checkpoint(MODELS[task])), other, **keys)
    assert seen[0].confusion_matrix.task == task
    assert seen[0].confusion_matrix.matrix[:3, :3].trace() > 10
    assert (tmp_path / "run" / "confusion_matrix.png").is_file()
    predictions = json.loads((tmp_path / "run" / "predictions.json").read_text())
    assert {row["category_id"] for row in predictions} == {1, 3}
    if task == "detect":
        assert {c["id"] for c in seen[0].gdict["categories"]} == {1, 2, 3}
        assert {a["category_id"] for a in seen[0].gdict["annotations"]} == {1, 3}


@TASKS
def test_what_only_one_side_has_does_not_count(
    task: str, tiny_data: Callable[[str], Path], checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    other = write_data(tmp_path / "other", tiny_data(task), {0: "green", 1: "blue"}, {0: 1, 1: 0})
    let_it_find(monkeypatch, {0: 1, 1: 0})  # the blue ones under the index of red
    evaluation = evaluate(str(checkpoint(MODELS[task])), other, save_dir=str(tmp_path / "a"), **QUICK)
    green = evaluation.row("class", "green")
    assert 0.2 < green.map50 < 0.9
    assert (evaluation.rows[0].map50, evaluation.rows[0].objects) == (green.map50, green.objects)
    assert 0 < green.objects < 32


@TASKS
@pytest.mark.parametrize("names", [{0: "red", 1: "lorry"}, {0: "car", 1: "lorry"}])
def test_names_that_say_nothing_against_the_indices_leave_them(
    task: str, names: dict[int, str], tiny_data: Callable[[str], Path], checkpoint: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    let_it_find(monkeypatch, {0: 0, 1: 1})
    rows = [
        evaluate(
            str(checkpoint(MODELS[task])), write_data(tmp_path / str(i), tiny_data(task), data_names, {0: 0, 1: 1}),
            save_dir=str(tmp_path / f"run{i}"), **QUICK,
        ).rows[0]
        for i, data_names in enumerate((SAME, names))
    ]  # fmt: skip
    assert rows[0] == rows[1]
    assert rows[0].map50 > 0.2


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What Ultralytics' logger is given as a warning."""
    messages: list[str] = []
    monkeypatch.setattr(LOGGER, "warning", lambda message, *_, **__: messages.append(str(message)))
    return messages


@pytest.mark.parametrize(
    ("names", "keys", "pairs"),
    [
        ({0: "tree", 1: "rock"}, {}, "data 'tree' as model 'red', data 'rock' as model 'green'"),
        ({0: "red", 1: "rock"}, {}, "data 'rock' as model 'green'"),
        ({0: "tree", 1: "rock", 2: "car"}, {}, "data 'tree' as model 'red', data 'rock' as model 'green'"),
        ({0: "tree", 1: "rock"}, {"classes": [1]}, "data 'rock' as model 'green'"),
        ({0: "tree", 1: "rock"}, {"single_cls": True}, None),
        ({0: "Red", 1: "GREEN"}, {}, None),
        ({0: "red"}, {}, None),
    ],
)
def test_classes_that_are_scored_under_other_names_are_warned_of(
    names: dict[int, str], keys: dict[str, Any], pairs: str | None, tiny_data: Callable[[str], Path],
    checkpoint: Callable[..., Path], warned: list[str], tmp_path: Path,
) -> None:  # fmt: skip
    data = write_data(tmp_path / "data", tiny_data("obb"), names, {0: 0, 1: min(1, len(names) - 1)})
    evaluate(str(checkpoint(MODELS["obb"])), data, **QUICK, **keys)
    index_warnings = [message for message in warned if "by index" in message]
    assert index_warnings == ([f"Classes are compared by index, but their names differ: {pairs}."] if pairs else [])


def test_an_exported_file_is_warned_of_by_the_names_that_it_holds(
    tiny_data: Callable[[str], Path], checkpoint: Callable[..., Path], warned: list[str], tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    (tmp_path / "model.pt").write_bytes(checkpoint(MODELS["obb"]).read_bytes())
    onnx = YOLO(str(tmp_path / "model.pt")).export(format="onnx", imgsz=96, device="cpu", simplify=False)
    data = write_data(tmp_path / "data", tiny_data("obb"), {0: "red", 1: "rock"}, {0: 0, 1: 1})
    accuracy(Path(onnx), "obb", data=str(data), imgsz=96, device="cpu")
    evaluate(onnx, data, **QUICK)
    index_warnings = [message for message in warned if "by index" in message]
    assert (
        index_warnings == ["Classes are compared by index, but their names differ: data 'rock' as model 'green'."] * 2
    )


def test_a_long_list_of_other_names_is_cut() -> None:
    model, data = [f"a{i}" for i in range(12)], [f"b{i}" for i in range(12)]
    warning = class_warning(model, data)
    assert warning is not None
    assert warning.count(" as model ") == 8
    assert warning.endswith("and 4 more.")
