"""Colours, ticks and shares of the panels."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from ds2d2_yolo.explanation.canvas import columns, shorten, wrap
from ds2d2_yolo.explanation.facts import AmplifierMaps, BandMaps
from ds2d2_yolo.explanation.panels import Scale, palette, percent, shares, ticks

ZEROS = np.zeros((4, 4), np.float32)


def test_teacher_and_student_have_one_scale() -> None:
    teacher, student = ZEROS + 1, ZEROS + 3
    assert Scale.of(teacher, student) == Scale.of(student, teacher) == Scale(0, 3)


def test_single_cells_are_clipped_and_the_scale_says_so() -> None:
    values = np.ones((40, 40), np.float32)
    values[0, 0] = 1000
    assert Scale.of(values) == Scale(0, 1, clipped=True)
    assert Scale.around_zero(-values) == Scale(-1, 1, "RdBu_r", clipped=True)


def test_maps_of_zeros_have_a_scale() -> None:
    assert Scale.of(ZEROS) == Scale(0, 1)
    assert Scale.around_zero(ZEROS) == Scale(-1, 1, "RdBu_r")


@pytest.mark.parametrize("high", [2e-6, 0.013, 0.97, 1.0, 7.3, 12345.0])
@pytest.mark.parametrize("low", [0.0, -1.0])
@pytest.mark.parametrize("few", [False, True])
def test_ticks_lie_on_the_bar_and_apart(high: float, low: float, few: bool) -> None:
    places = ticks(Scale(low * high, high), few)
    assert low * high <= places[0] < places[-1] <= high
    assert min(np.diff(places)) > 0.1 * (1 - low) * high / 2
    assert len(places) == 2 if few else 2 <= len(places) <= 7


def test_shares_sum_to_1() -> None:
    assert shares([1, 3]).tolist() == [0.25, 0.75]
    assert shares([0, 0]).tolist() == [0, 0]
    assert [percent(x) for x in (0, 0.001, 0.5, 1)] == ["0 %", "<1 %", "50 %", "100 %"]


def test_share_on_objects() -> None:
    objects = np.zeros((2, 2), bool)
    objects[0, 0] = True
    values = np.array([[3, 1], [0, 0]], np.float32)
    maps = AmplifierMaps(8, values, 0 * values, objects)
    assert maps.share_on_objects(values) == 0.75
    assert maps.share_on_objects(0 * values) == 0


def test_difference_is_student_minus_teacher() -> None:
    assert BandMaps(ZEROS + 3, ZEROS + 1, ZEROS).difference.tolist() == (ZEROS - 2).tolist()


def test_classes_have_different_colours() -> None:
    assert len(set(palette([str(i) for i in range(20)]).values())) == 20


def test_columns_fill_the_sheet() -> None:
    places = columns(4)
    assert places[0][0] == pytest.approx(12 - sum(places[-1]))
    assert all(b[0] - sum(a) == pytest.approx(0.25) for a, b in pairwise(places))


def test_long_names_keep_beginning_and_end() -> None:
    assert shorten("a" * 5, 9) == "aaaaa"
    assert shorten("begin" + "x" * 50 + "end.png", 15) == "beginx...nd.png"
    assert len(shorten("b" * 99, 12)) == 12


def test_text_wraps_and_keeps_line_ends() -> None:
    assert wrap("one two\nthree", 50, 10) == ["one two", "three"]
    assert max(map(len, wrap("word " * 50, 2, 10))) < 30
