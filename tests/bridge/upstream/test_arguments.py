"""Ultralytics' settings are checked before anything is loaded, those too that it looks at late or ignores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ds2d2_yolo.bridge.upstream.arguments import validate_ultralytics_args
from ds2d2_yolo.errors import BadUseError

WRONG: list[tuple[str, Any, str]] = [
    ("pretrained", "weights.txt", r"is no checkpoint \(\.pt\)"),
    ("pretrained", "yolov8n.yaml", r"is no checkpoint \(\.pt\)"),
    ("pretrained", "best.onnx", r"is no checkpoint \(\.pt\)"),
    ("pretrained", "yolov8n", r"is no checkpoint \(\.pt\)"),
    ("pretrained", 5, r"must be True, False or a checkpoint"),
    ("pretrained", ["a.pt"], r"must be True, False or a checkpoint"),
    ("freeze", "abc", "must be a number of layers, or a list"),
    ("freeze", 1.5, "must be a number of layers, or a list"),
    ("freeze", -3, "must be a number of layers, or a list"),
    ("freeze", True, "must be a number of layers, or a list"),
    ("freeze", (0, 1), "must be a number of layers, or a list"),
    ("freeze", [0, 1.5], "must be a number of layers, or a list"),
    ("freeze", [-1], "must be a number of layers, or a list"),
    ("seed", 2**32 - 1, "must be at most"),
    ("cache", "rm", "must be True, False, ram or disk"),
    ("compile", "defualt", "did you mean 'default'"),
    ("copy_paste_mode", "flp", "did you mean 'flip'"),
    ("optimizer", "Adamm", "did you mean 'adam'"),
    ("time", -1, "must be at least 0"),
    ("warmup_epochs", -1, "must be at least 0"),
    ("box", -1.0, "must be at least 0"),
    ("cls", float("nan"), "must be a finite number"),
    ("degrees", float("inf"), "must be a finite number"),
    ("imgsz", True, "must be a whole number of pixels"),
    ("imgsz", [], "must be a whole number of pixels"),
    ("batch", True, "must be a number of images"),
    ("classes", [0, True], "must be numbers of classes"),
    ("workers", -1, "must be a whole number"),
    ("project", ["a"], "must be a path"),
    ("name", "a\nb", "must be one line"),
    ("patience", -1, "invalid value"),
    ("save_period", 1.5, "must be an int"),
    ("cos_lr", "yes", "must be a bool"),
    ("multi_scale", 2.0, "invalid value"),
    ("fraction", 0.0, "invalid"),
    ("mosaic", 1.1, "invalid value"),
]
RIGHT: list[tuple[str, Any]] = [
    *(("pretrained", v) for v in (True, False, None, "best.pt", Path("a/best.PT"), "yolov8n.pt")),
    *(("freeze", v) for v in (None, 0, 10, [0, 1], ["23.cv2", 3])),
    *(("cache", v) for v in (None, True, False, "ram", "RAM", "disk")),
    *(("compile", v) for v in (True, False, "default", "max-autotune-no-cudagraphs")),
    *(("seed", v) for v in (0, 2**32 - 1025)),
    *(("close_mosaic", v) for v in (-1, 0, 10)),
    *(("batch", v) for v in (-1, 0.7, 16)),
    *(("project", v) for v in (None, "", "runs/my project", Path("runs"), 5)),
    *(("classes", v) for v in (None, 0, [0, 2], (1, 2))),
    ("copy_paste_mode", "mixup"),
    ("optimizer", "MuSGD"),
    ("time", 0.5),
    ("save_period", -1),
    ("imgsz", [640, 320]),
]


@pytest.mark.parametrize(("key", "value", "message"), WRONG)
def test_a_wrong_value_is_named(key: str, value: Any, message: str) -> None:
    with pytest.raises(BadUseError, match=rf"(?s){key}=.*{message}") as e:
        validate_ultralytics_args({key: value})
    assert len(str(e.value).splitlines()) == 1 or "\n" in str(value)


@pytest.mark.parametrize(("key", "value"), RIGHT)
def test_what_ultralytics_takes_passes(key: str, value: Any) -> None:
    validate_ultralytics_args({key: value})


@pytest.mark.parametrize("text", ["freeze: abc", "pretrained: best.onnx", "copy_paste_mode: flp", "cls: .nan"])
def test_the_values_of_a_yaml_are_checked_too(text: str, tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(f"{text}\nexlo: 1\n")
    with pytest.raises(BadUseError, match=text.partition(":")[0]):
        validate_ultralytics_args({"cfg": str(file)})
