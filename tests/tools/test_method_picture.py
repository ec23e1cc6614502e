"""The picture of the method: each box adds exactly 1 to the map that it shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import method_picture

    monkeypatch.setattr(method_picture, "PICTURE", tmp_path / "picture.webp")
    return method_picture


def test_every_box_adds_one(tool: Any) -> None:
    upright = np.array([[32, 32], [96, 32], [96, 64], [32, 64]], np.float32)
    turned = np.array([[300, 200], [340, 240], [320, 260], [280, 220]], np.float32)
    weight = tool.weight_of([upright, turned])
    assert weight.shape == (40, 40)
    assert float((weight - 1).sum()) == pytest.approx(2, abs=1e-4)
    assert weight[2:4, 2:6].tolist() == [[1.125] * 4] * 2


def test_command_draws_it(tool: Any) -> None:
    tool.main()
    assert (ROOT / "docs" / "pictures" / "disw.webp").is_file()
    assert tool.PICTURE.stat().st_size > 50_000
