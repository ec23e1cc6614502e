"""The files of a validation: CSV, JSON and plot, written atomically."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from ds2d2_yolo.evaluate.metrics import GroupMetrics
from ds2d2_yolo.utils.atomic_files import replacing, write_json, write_whole


def write_csv(path: Path, rows: Sequence[GroupMetrics]) -> None:
    """Write metrics as CSV; values that a group without objects lacks are empty."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [f.name for f in fields(GroupMetrics)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(_plain(rows))
    write_whole(path, text.getvalue())


def write_report(path: Path, rows: Sequence[GroupMetrics], facts: dict[str, Any]) -> None:
    """Write metrics and facts as JSON; values that a group without objects lacks are null."""
    write_json(path, {**facts, "rows": _plain(rows)})


def _plain(rows: Sequence[GroupMetrics]) -> list[dict[str, Any]]:
    """Return metrics as plain values, None for NaN."""
    return [{k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(r).items()} for r in rows]


def draw(path: Path, rows: Sequence[GroupMetrics]) -> None:
    """Draw mAP50 and mAP50-95 of the groups, one panel per grouping, and of all objects as lines.

    Args:
        path (Path): PNG file.
        rows (Sequence[GroupMetrics]): Metrics, 'all' first.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    kinds = {k: [r for r in rows if r.by == k] for k in dict.fromkeys(r.by for r in rows[1:])}
    widths = [max(4, len(of_kind)) for of_kind in kinds.values()]
    figure = Figure(figsize=(0.8 * sum(widths) + 1, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False, gridspec_kw={"width_ratios": widths})[0]
    for panel, (kind, of_kind) in zip(panels, kinds.items(), strict=True):
        _draw_grouping(panel, kind, of_kind, rows[0])
    panels[0].set_ylabel("average precision")
    panels[0].legend(loc="upper left", fontsize="small")
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)


def _draw_grouping(panel: Any, kind: str, rows: Sequence[GroupMetrics], total: GroupMetrics) -> None:
    """Draw one panel: two bars per group with objects, the number of objects below its name."""
    for shift, value, label, colour in ((-0.2, "map50", "mAP50", "C0"), (0.2, "map50_95", "mAP50-95", "C1")):
        places = [i + shift for i in range(len(rows))]
        panel.bar(places, [getattr(r, value) for r in rows], 0.4, color=colour, label=label)
        panel.axhline(getattr(total, value), color=colour, linestyle="--", linewidth=1)
    upright = 90 if max(len(r.group) for r in rows) > 8 else 0
    panel.set_xticks(range(len(rows)), [f"{r.group}\n{r.objects or '-'}" for r in rows], rotation=upright)
    panel.set_xlim(-0.6, len(rows) - 0.4)
    panel.set_title(f"by {kind}")
