"""Table of group metrics for screen and Markdown."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ds2d2_yolo.evaluate.metrics import GroupMetrics

HEADER = ("by", "group", "images", "objects", "mAP50", "mAP50-95", "recall")


def table(rows: Sequence[GroupMetrics]) -> str:
    """Return metrics as a Markdown table with aligned columns; '-' stands for missing values."""
    cells = [_cells(r) for r in rows]
    widths = [max(len(c[i]) for c in (HEADER, *cells)) for i in range(len(HEADER))]
    rule = tuple("-" * w if i < 2 else "-" * (w - 1) + ":" for i, w in enumerate(widths))
    return "\n".join("| " + " | ".join(_aligned(c, widths)) + " |" for c in (HEADER, rule, *cells))


def _cells(row: GroupMetrics) -> tuple[str, ...]:
    """Return the cells of a row."""
    numbers = (f"{v:.3f}" if np.isfinite(v) else "-" for v in (row.map50, row.map50_95, row.recall))
    return (row.by, row.group, str(row.images), str(row.objects), *numbers)


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Pad cells, words to the left and numbers to the right."""
    return [c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))]
