"""A data set that a test may change."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ultralytics.data.utils import check_det_dataset


@pytest.fixture
def data(tiny_data: Callable[[str], Path], tmp_path: Path) -> dict[str, Any]:
    """A copy of the tiny data set that a test may change."""
    shutil.copytree(tiny_data("obb").parent, tmp_path / "copy")
    yaml = tmp_path / "copy" / "data.yaml"
    yaml.write_text(yaml.read_text().replace(tiny_data("obb").parent.as_posix(), (tmp_path / "copy").as_posix()))
    return dict(check_det_dataset(yaml))
