"""The files of a validation: CSV, JSON and plot, each written whole or not at all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from ds2d2_yolo.evaluate.metrics import GroupMetrics
from ds2d2_yolo.utils import tables
from ds2d2_yolo.utils.atomic_files import replacing, write_json


def write_csv(path: Path, rows: Sequence[GroupMetrics]) -> None:
    """Write rows as CSV; what a group without objects does not have is empty."""
    tables.write_csv(path, [f.name for f in fields(GroupMetrics)], [list(row.values()) for row in plain(rows)])


def write_report(path: Path, rows: Sequence[GroupMetrics], facts: dict[str, Any]) -> None:
    """Write rows and facts as JSON; what a group without objects does not have is null."""
    write_json(path, {**facts, "rows": plain(rows)})


def plain(rows: Sequence[GroupMetrics]) -> list[dict[str, Any]]:
    """Return rows as plain values, None for NaN."""
    return [{k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(r).items()} for r in rows]


def draw(path: Path, rows: Sequence[GroupMetrics]) -> None:
    """Draw mAP50 and mAP50-95 of the groups, a panel for each split, and that of the whole as lines.

    Args:
        path (Path): PNG file.
        rows (Sequence[GroupMetrics]): 'all' first.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    kinds = {k: [r for r in rows if r.by == k] for k in dict.fromkeys(r.by for r in rows[1:])}
    widths = [max(4, len(of_kind)) for of_kind in kinds.values()]
    figure = Figure(figsize=(0.8 * sum(widths) + 1, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False, gridspec_kw={"width_ratios": widths})[0]
    for panel, (kind, of_kind) in zip(panels, kinds.items(), strict=True):
        _draw_split(panel, kind, of_kind, rows[0])
    panels[0].set_ylabel("average precision")
    panels[0].legend(loc="upper left", fontsize="small")
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)


def _draw_split(panel: Any, kind: str, rows: Sequence[GroupMetrics], overall: GroupMetrics) -> None:
    """Draw one panel: two bars a group, the number of objects under its name, nothing where there are none."""
    for shift, metric, label, colour in ((-0.2, "map50", "mAP50", "C0"), (0.2, "map50_95", "mAP50-95", "C1")):
        places = [i + shift for i in range(len(rows))]
        panel.bar(places, [getattr(r, metric) for r in rows], 0.4, color=colour, label=label)
        panel.axhline(getattr(overall, metric), color=colour, linestyle="--", linewidth=1)
    upright = 90 if max(len(r.group) for r in rows) > 8 else 0
    panel.set_xticks(range(len(rows)), [f"{r.group}\n{r.objects or '-'}" for r in rows], rotation=upright)
    panel.set_xlim(-0.6, len(rows) - 0.4)
    panel.set_title(f"by {kind}")
