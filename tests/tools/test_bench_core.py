"""The benchmark compares like with like, and its tables come out."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from ds2d2_yolo.core.disw import disw_map
from ds2d2_yolo.core.losses.explicit import explicit_loss

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    import bench_core

    return bench_core


@pytest.mark.parametrize("side", [8, 7])
def test_straightforward_terms_are_the_same_terms(bench, side: int) -> None:
    student, teacher = torch.randn(2, 2, 3, side, side, dtype=torch.float64)
    weight = 1 + torch.rand(2, 1, -(-side // 2), -(-side // 2), dtype=torch.float64)
    expected = bench.reference_explicit(student, teacher, weight)
    torch.testing.assert_close(explicit_loss(student, teacher, weight), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("rotated", [False, True])
def test_loop_over_boxes_gives_the_same_map(bench, rotated: bool) -> None:
    boxes, image = bench.random_boxes(50, 2, 320.0, rotated, torch.device("cpu"))
    expected = bench.reference_map(boxes, image, 2, 20, 16.0)
    torch.testing.assert_close(disw_map(boxes, image, 2, (20, 20), (16.0, 16.0)), expected, rtol=1e-4, atol=1e-4)


def test_tables(bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--cells", "8", "--batch", "2", "--boxes", "0", "3", "--repeats", "1", "--threads", "0"]
    monkeypatch.setattr(sys, "argv", ["bench_core.py", *arguments])
    bench.main()
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    # Two headings, three levels and their sum, two counts of two kinds of boxes.
    assert len(rows) == 2 + 4 + 4
    assert len({line.count("|") for line in rows}) == 2
