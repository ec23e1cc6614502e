from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from ds2d2_yolo.errors import BadUseError
from ds2d2_yolo.prepare.options import PrepareOptions


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"gap": 1024}, "gap=1024 must be under crop_size=1024"),
        ({"rates": [1.0, 1.0]}, "name the same tiles twice"),
        ({"rates": []}, "or a list"),
        ({"rates": [0.5, 0]}, "holds 0"),
        ({"crop_size": 64, "gap": 0, "rates": 4}, "make tiles of 16 px"),
        ({"version": 2.0}, "version=2.0 must be 1.0 or 1.5"),
        ({"splits": ["trian"]}, "did you mean 'train'"),
        ({"iof": 0}, "iof=0 must be a finite number above 0"),
        ({"difficult": "maybe"}, "must be one of keep, drop"),
        ({"tile": 512}, "unknown key: 'tile'"),
    ],
)
def test_wrong_options_are_named(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(BadUseError, match=message):
        PrepareOptions.of(keys, "data")


def test_windows_are_those_of_ultralytics() -> None:
    sides, gaps = PrepareOptions(rates=[0.5, 1.0, 1.5]).windows
    assert sides == (2048, 1024, 682)
    assert gaps == (400, 200, 133)
    assert int(66 / 0.55) == 119  # in floating point; 120 is meant
    assert PrepareOptions(crop_size=66, gap=11, rates=0.55).windows == ((120,), (20,))
    assert PrepareOptions(version="1.5").version == "1.5"


def test_options_load_nothing_heavy() -> None:
    code = (
        "import sys, ds2d2_yolo.prepare.options; "
        "print([m for m in ('torch', 'ultralytics', 'cv2', 'PIL', 'shapely') if m in sys.modules])"
    )
    heavy = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert heavy.strip() == "[]"
