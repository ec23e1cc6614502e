"""Runs of cells that rotated rectangles touch; `test_disw.py` compares the maps with polygons."""

from __future__ import annotations

import math
from unittest import mock

import pytest
import torch

from ds2d2_yolo.core.rotated_cells import row_spans

GRID, CELL, ORIGIN = (6, 8), (16.0, 16.0), (0.0, 0.0)


def runs(rectangle: list[float], keep: bool = True, device: torch.device | str = "cpu") -> list[tuple[int, int, int]]:
    """Row, first column and column after the last one of the runs of a rectangle that are not empty."""
    columns = torch.tensor([rectangle], device=device).t().contiguous()
    _, row, start, stop = row_spans(columns, torch.tensor([keep], device=device), GRID, CELL, ORIGIN)
    triples = zip(row.tolist(), start.tolist(), stop.tolist(), strict=True)
    return [(r, a, b) for r, a, b in triples if b > a]


@pytest.mark.parametrize("quarter_turns", range(-2, 3))
def test_rectangle_along_the_axes(quarter_turns: int, device: torch.device) -> None:
    sides = (40.0, 8.0) if quarter_turns % 2 == 0 else (8.0, 40.0)
    assert runs([36, 24, *sides, quarter_turns * math.pi / 2], device=device) == [(1, 1, 4)]


def test_diamond(device: torch.device) -> None:
    side = 32 * math.sqrt(2)
    expected = [(0, 1, 3), (1, 0, 4), (2, 0, 4), (3, 1, 3)]
    assert runs([32, 32, side, side, math.pi / 4], device=device) == expected


def test_outside_or_masked_rectangles_have_no_cells(device: torch.device) -> None:
    assert runs([-100, 20, 40, 40, 0.3], device=device) == []
    assert runs([40, 40, 20, 20, 0.3], keep=False, device=device) == []


def test_all_rows_and_crossed_rows_give_the_same_runs() -> None:
    """Accelerators and torch.compile take all rows: the host does not know how many are crossed."""
    crossed = runs([50, 40, 70, 20, 0.7])
    with mock.patch("torch.compiler.is_compiling", return_value=True):
        assert runs([50, 40, 70, 20, 0.7]) == crossed
