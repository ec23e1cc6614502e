"""The size of the teacher's images is the student's times a power of two, or one line says what to give."""

from __future__ import annotations

import pytest

from ds2d2_yolo.config.image_sizes import size_ratio
from ds2d2_yolo.config.settings import Settings
from ds2d2_yolo.errors import BadUseError


@pytest.mark.parametrize(
    ("imgsz", "teacher_imgsz", "ratio"),
    [(320, None, 1), (320, 640, 2), (320, 1280, 4), (64, 512, 8), ([256, 320], 640, 2), (330, 660, 2)],
)
def test_ratio(imgsz: int, teacher_imgsz: int | None, ratio: int) -> None:
    assert size_ratio(imgsz, teacher_imgsz) == ratio


@pytest.mark.parametrize(
    ("teacher_imgsz", "message"),
    [
        (320, "teacher_imgsz=320 is the student's size: leave it out, or give 640"),
        (160, "teacher_imgsz=160 is smaller than imgsz=320: give 640, or 1280"),
        (960, "teacher_imgsz=960 has to be imgsz=320 times 2, 4 or 8: give 640, or 1280"),
        (650, "teacher_imgsz=650 has to be imgsz=320 times 2, 4 or 8: give 640, or 1280"),
    ],
)
def test_other_sizes_are_refused(teacher_imgsz: int, message: str) -> None:
    with pytest.raises(BadUseError) as e:
        size_ratio(320, teacher_imgsz)
    assert str(e.value) == message


@pytest.mark.parametrize("value", [0, -640, 640.5, "large", True])
def test_a_size_is_a_whole_number(value: object) -> None:
    with pytest.raises(BadUseError, match=r"teacher_imgsz=.*must be a whole number of at least 1"):
        Settings(teacher_imgsz=value)  # type: ignore[arg-type]
