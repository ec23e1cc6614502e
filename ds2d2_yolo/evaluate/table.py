"""Rows as a table that reads on a screen and in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ds2d2_yolo.evaluate.metrics import GroupMetrics
from ds2d2_yolo.utils.tables import markdown_table

HEAD = ("by", "group", "images", "objects", "mAP50", "mAP50-95", "recall")


def table(rows: Sequence[GroupMetrics]) -> str:
    """Return rows as a Markdown table with aligned columns; a group without objects has '-'."""
    return markdown_table(HEAD, map(_cells, rows), text_columns=2)


def _cells(row: GroupMetrics) -> tuple[str, ...]:
    """Return the cells of a row."""
    numbers = (f"{v:.3f}" if np.isfinite(v) else "-" for v in (row.map50, row.map50_95, row.recall))
    return (row.by, row.group, str(row.images), str(row.objects), *numbers)
