"""Rows as a table that reads on a screen and in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ds2d2_yolo.evaluate.metrics import Row

HEAD = ("by", "group", "images", "objects", "mAP50", "mAP50-95", "recall")


def table(rows: Sequence[Row]) -> str:
    """Return rows as a Markdown table with aligned columns; a group without objects has '-'."""
    cells = [_cells(r) for r in rows]
    widths = [max(len(c[i]) for c in (HEAD, *cells)) for i in range(len(HEAD))]
    rule = tuple("-" * w if i < 2 else "-" * (w - 1) + ":" for i, w in enumerate(widths))
    return "\n".join("| " + " | ".join(_aligned(c, widths)) + " |" for c in (HEAD, rule, *cells))


def _cells(row: Row) -> tuple[str, ...]:
    """Return the cells of a row."""
    numbers = (f"{v:.3f}" if np.isfinite(v) else "-" for v in (row.map50, row.map50_95, row.recall))
    return (row.by, row.group, str(row.images), str(row.objects), *numbers)


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Pad cells, words to the left and numbers to the right."""
    return [c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))]
