"""The rows of a benchmark: as a table, as CSV and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from ds2d2_yolo.utils.atomic_files import replacing
from ds2d2_yolo.utils.tables import csv_text


@dataclass(frozen=True)
class Row:
    """What was measured of one model in one format.

    Attributes:
        model (str): Its name.
        format (str): The format, with its precision.
        reason (str | None): Why it could not be measured, or not all of it: what was has its numbers.
        parameters (int): Of the checkpoint.
        gflops (float): Of the checkpoint at the benchmark's image size.
        file_mb (float | None): Size of the file or folder in MB (1e6 bytes).
        latency_ms (float | None): Median of the forward pass of one image.
        p95_ms (float | None): 95th percentile likewise.
        total_ms (float | None): Median with letterbox and NMS.
        total_p95_ms (float | None): 95th percentile likewise.
        times_first (float | None): `total_ms` over that of the table's first row.
        images_per_s (float | None): Throughput with letterbox and NMS, in batches.
        peak_mb (float | None): Peak resident memory of its process, Python and torch included.
        added_mb (float | None): Of that, what came after the images were read and before which the model was loaded.
        map50 (float | None): mAP50 on the validation split, 0 to 1.
        map50_95 (float | None): mAP50-95 likewise.
        runs (int): Timed runs.
        other_cores (float | None): Most cores that other processes kept busy during a turn of its timing.
    """

    model: str
    format: str
    reason: str | None
    parameters: int
    gflops: float
    file_mb: float | None = None
    latency_ms: float | None = None
    p95_ms: float | None = None
    total_ms: float | None = None
    total_p95_ms: float | None = None
    times_first: float | None = None
    images_per_s: float | None = None
    peak_mb: float | None = None
    added_mb: float | None = None
    map50: float | None = None
    map50_95: float | None = None
    runs: int = 0
    other_cores: float | None = None


# heading, digits and field of each number in the table
COLUMNS = (
    ("params M", 2, "parameters"), ("GFLOPs", 1, "gflops"), ("MB", 1, "file_mb"), ("forward ms", 1, "latency_ms"),
    ("p95", 1, "p95_ms"), ("total ms", 1, "total_ms"), ("p95", 1, "total_p95_ms"), ("x first", 2, "times_first"),
    ("img/s", 1, "images_per_s"), ("peak MB", 0, "peak_mb"), ("added MB", 0, "added_mb"), ("mAP50", 3, "map50"),
    ("mAP50-95", 3, "map50_95"),
)  # fmt: skip


def row_of(cell: dict[str, Any], batch: int) -> Row:
    """Return the row of a finished or failed cell.

    Args:
        cell (dict[str, Any]): What was measured: facts, answers of the turns under 'turns', mAP.
        batch (int): Images at once in the throughput.

    Returns:
        (Row): Medians and percentiles over the runs of all turns; `times_first` is filled in by `ratios`.
    """
    facts: dict[str, Any] = {k: cell.get(k) for k in ("model", "format", "parameters", "gflops", "file_mb", "reason")}
    turns = cell.get("turns", {}).values()
    if not turns:
        return Row(**facts)
    forward, total = (np.array([x for t in turns for x in t[k]]) for k in ("forward", "total"))
    batches = [x for t in turns for x in t.get("batches", t["total"])]
    memory: dict[str, Any] = {k: [t[k] for t in turns if t[k] is not None] for k in ("peak_mb", "added_mb")}
    return Row(
        **facts,
        latency_ms=float(np.median(forward)),
        p95_ms=float(np.quantile(forward, 0.95)),
        total_ms=float(np.median(total)),
        total_p95_ms=float(np.quantile(total, 0.95)),
        images_per_s=1000 * batch / float(np.median(batches)),
        peak_mb=max(memory["peak_mb"], default=None),
        added_mb=max(memory["added_mb"], default=None),
        map50=cell.get("map50"),
        map50_95=cell.get("map50_95"),
        runs=len(total),
        other_cores=max((t["other_cores"] for t in turns if "other_cores" in t), default=None),
    )


def ratios(rows: Sequence[Row]) -> list[Row]:
    """Return the rows with the ratio of each total to the first row's."""
    first = rows[0].total_ms if rows else None
    return [replace(r, times_first=r.total_ms / first if first and r.total_ms else None) for r in rows]


def table(rows: Sequence[Row]) -> str:
    """Return the rows as text."""
    wide = max(len(r.model) for r in rows), max(len(r.format) for r in rows)
    lines = [f"{'model':{wide[0]}}  {'format':{wide[1]}}" + "".join(f"  {h:>{_width(h)}}" for h, *_ in COLUMNS)]
    for row in rows:
        line = f"{row.model:{wide[0]}}  {row.format:{wide[1]}}"
        if not row.runs:
            lines.append(f"{line}  not measured: {row.reason}")
            continue
        for heading, digits, name in COLUMNS:
            value = getattr(row, name)
            value = value / 1e6 if name == "parameters" else value
            line += f"  {'-' if value is None else f'{value:.{digits}f}':>{_width(heading)}}"
        lines.append(line + (f"  not all: {row.reason}" if row.reason else ""))
    return "\n".join(lines)


def _width(heading: str) -> int:
    """Return the width of a column."""
    return max(len(heading), 6)


def as_csv(rows: Sequence[Row]) -> str:
    """Return the rows as CSV, the names of `Row` in the first line."""
    return csv_text([f.name for f in fields(Row)], map(astuple, rows))


def draw(rows: Sequence[Row], path: Path, title: str) -> bool:
    """Draw mAP50-95 over latency, a colour for each model and a marker for each format.

    Args:
        rows (Sequence[Row]): The rows.
        path (Path): The PNG file.
        title (str): Over the picture.

    Returns:
        (bool): Whether there was anything to draw.
    """
    shown = [r for r in rows if r.total_ms is not None and r.map50_95 is not None]
    if not shown:
        return False
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.lines import Line2D

    models, formats = list(dict.fromkeys(r.model for r in shown)), list(dict.fromkeys(r.format for r in shown))
    colour = {m: f"C{i % 10}" for i, m in enumerate(models)}
    marker = {f: "osD^vP*Xh<>p"[i % 12] for i, f in enumerate(formats)}
    figure, axes = plt.subplots(figsize=(8, 5), constrained_layout=True)
    for row in shown:
        at, most = float(row.total_ms or 0), float(row.total_p95_ms or 0)
        beyond = np.array([[0.0], [max(most - at, 0.0)]])
        look: dict[str, Any] = {"fmt": marker[row.format], "color": colour[row.model], "markersize": 9, "alpha": 0.85}
        axes.errorbar([at], [float(row.map50_95 or 0)], xerr=beyond, capsize=2, elinewidth=0.8, **look)
    handles = [Line2D([], [], color=colour[m], lw=4, label=m) for m in models]
    handles += [Line2D([], [], color="0.4", ls="", marker=marker[f], ms=8, label=f) for f in formats]
    axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    axes.set(xlabel="ms an image: letterbox, forward pass, NMS (median; bar to the 95th percentile)",
             ylabel="mAP50-95", title=title)  # fmt: skip
    axes.set(xlim=(0, None), ylim=(0, 1.15 * max(float(r.map50_95 or 0) for r in shown) or 1))
    axes.grid(alpha=0.3)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    plt.close(figure)
    return True
