"""The pre-flight report names images that the training would leave out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ds2d2_yolo.bridge.preflight import collect
from tests.conftest import write_tiny_data
from tests.helpers.runs import report_of


def test_images_that_are_left_out_are_named(
    tiny_trainer: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collect, "teacher_map", lambda *_: (0.5, 0.25))
    data = write_tiny_data(tmp_path / "data", "obb")
    label = data.parent / "labels" / "train" / "3.txt"
    label.write_text("11 0.1 0.1 0.2 0.1 0.2 0.2 0.1 0.2\n", encoding="utf-8")
    (warning,) = report_of(tiny_trainer("obb", data=str(data))).warnings
    assert warning.startswith("1 of the 8 training images is left out, such as ")
    assert "Label class 11 exceeds dataset class count" in warning
