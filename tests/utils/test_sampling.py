"""Choices among images."""

from __future__ import annotations

import numpy as np
import pytest

from ds2d2_yolo.utils.sampling import choose_varied, evenly_spaced


@pytest.mark.parametrize(
    ("images", "number", "expected"), [(10, 2, [2, 7]), (2, 4, [0, 1]), (1, 1, [0]), (5, 5, [0, 1, 2, 3, 4])]
)
def test_images_are_chosen_evenly(images: int, number: int, expected: list[int]) -> None:
    assert evenly_spaced(range(images), number) == expected


def test_varied_images_show_as_many_classes_as_they_can() -> None:
    classes = [np.array(c, dtype=np.int64) for c in ([0, 0], [0, 1], [0, 1, 1], [0, 0, 0, 3], [], [0] * 9)]
    assert choose_varied(range(6), classes, 3) == [3, 2, 5]
    assert choose_varied(range(6), classes, 1) == [3]
    assert sorted(choose_varied(range(6), classes, 9)) == list(range(6))
    assert choose_varied([4], classes[4:5], 2) == [4]
