"""Checkpoints and keys before an export, and its files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ultralytics import YOLO
from ultralytics.engine.exporter import export_formats

from ds2d2_yolo.bridge.inference import export as exporter
from ds2d2_yolo.deploy.options import FORMATS
from ds2d2_yolo.errors import BadUseError, DS2D2Error


def test_the_listed_formats_are_ultralytics() -> None:
    assert tuple(export_formats()["Argument"][1:]) == FORMATS


def test_a_checkpoint_is_read(checkpoint: Callable[..., Path]) -> None:
    facts = exporter.open_checkpoint(str(checkpoint("yolov8n-obb.yaml")), "export")
    assert (facts.task, facts.imgsz, facts.stride, facts.channels, facts.data) == ("obb", 96, 32, 3, None)
    assert facts.parameters > 3e6
    assert facts.names == ("red", "green")


def test_what_cannot_be_exported_is_said_in_one_line(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    torn = tmp_path / "torn.pt"
    torn.write_bytes(b"PK half a file")
    unfinished = tmp_path / "last.pt"
    state = torch.load(checkpoint("yolov8n.yaml"), weights_only=False)
    torch.save({**state, "epoch": 2, "optimizer": {"state": {}}}, unfinished)
    cases = [
        (None, "model= missing"),
        ("nowhere.pt", "does not exist"),
        ("yolov8n.yaml", "is no checkpoint"),
        (str(torn), "cannot be read"),
        (str(unfinished), "unfinished training (3 epochs): finish it with 'resume'"),
    ]
    for name, message in cases:
        with pytest.raises(BadUseError) as caught:
            exporter.open_checkpoint(name, "export")
        assert message in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1
    assert exporter.open_checkpoint(str(unfinished), "export", unfinished=True).task == "detect"


def test_older_names_become_the_present_ones(checkpoint: Callable[..., Path], tiny_data: Callable[[str], Path]) -> None:
    facts = exporter.open_checkpoint(str(checkpoint("yolov8n.yaml")), "export")
    assert exporter.export_args("onnx", {"half": True, "imgsz": 65}, facts) == {
        "imgsz": [96, 96], "batch": 1, "quantize": 16, "nms": None
    }  # fmt: skip
    data = str(tiny_data("detect"))
    args = exporter.export_args("openvino", {"int8": True, "data": data, "end2end": True}, facts)
    assert (args["quantize"], args["nms"], args["data"]) == (8, False, data)
    assert "data" not in exporter.export_args("torchscript", {"data": data}, facts)  # the check alone takes it


@pytest.mark.parametrize(
    ("format", "missing", "keys", "message"),
    [
        ("onnx", "onnxruntime", {}, "format=onnx needs onnxruntime: pip install 'ds2d2-yolo[export]'"),
        ("onnx", "onnxslim", {}, "needs onnxslim: pip install 'ds2d2-yolo[export]'"),
        ("openvino", "openvino", {}, "format=openvino needs openvino: pip install 'ds2d2-yolo[openvino]'"),
        ("openvino", "nncf", {"quantize": 8}, "format=openvino needs nncf: pip install 'ds2d2-yolo[openvino]'"),
        ("ncnn", "pnnx", {}, "format=ncnn needs pnnx: pip install 'pnnx==20260526'"),
    ],
)
def test_missing_packages_are_named_before_anything_is_done(
    format: str, missing: str, keys: dict[str, Any], message: str, checkpoint: Callable[..., Path],
    tiny_data: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(exporter, "find_spec", lambda name: None if name == missing else object())
    facts = exporter.open_checkpoint(str(checkpoint("yolov8n.yaml")), "export")
    with pytest.raises(BadUseError) as caught:
        exporter.export_args(format, {**keys, "data": str(tiny_data("detect"))}, facts)
    assert message in str(caught.value)


def test_an_export_that_fails_leaves_the_old_file_alone(
    checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = exporter.open_checkpoint(str(checkpoint("yolov8n.yaml")), "export")
    (tmp_path / "old_model").mkdir()
    (tmp_path / "old_model" / "weights").write_text("old", encoding="utf-8")

    def failing_export(self: Any, **_: Any) -> str:
        made = Path(self.ckpt_path).with_name("old_model")
        made.mkdir()
        (made / "weights").write_text("half", encoding="utf-8")
        raise RuntimeError("disk full\nmore")

    with monkeypatch.context() as patch:
        patch.setattr(YOLO, "export", failing_export)
        with pytest.raises(DS2D2Error, match=r"failed: disk full$"):
            exporter.write_export(facts, "openvino", {}, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["old_model"]
    assert (tmp_path / "old_model" / "weights").read_text(encoding="utf-8") == "old"


def test_a_folder_takes_the_place_of_an_older_one(
    checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = exporter.open_checkpoint(str(checkpoint("yolov8n.yaml")), "export")
    (tmp_path / "new_model").mkdir()
    (tmp_path / "new_model" / "stale").write_text("old", encoding="utf-8")

    def complete_export(self: Any, **_: Any) -> str:
        made = Path(self.ckpt_path).with_name("new_model")
        made.mkdir()
        (made / "weights").write_text("new", encoding="utf-8")
        return str(made)

    monkeypatch.setattr(YOLO, "export", complete_export)
    file = exporter.write_export(facts, "openvino", {}, tmp_path)
    assert [p.name for p in tmp_path.rglob("*")] == ["new_model", "weights"]
    assert file == tmp_path / "new_model"


def test_a_folder_that_cannot_be_written_is_named(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    facts = exporter.open_checkpoint(str(checkpoint("yolov8n.yaml")), "export")
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(BadUseError, match="cannot be written"):
        exporter.write_export(facts, "onnx", {}, tmp_path / "file")
