"""The rows of a benchmark as a table, as CSV and as a plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from ds2d2_yolo.utils.atomic_files import replacing
from ds2d2_yolo.utils.tables import csv_text


@dataclass(frozen=True)
class BenchmarkRow:
    """The measurements of one model in one format.

    Attributes:
        model (str): Its name.
        format (str): The format, with its precision.
        reason (str | None): Why a measurement failed; those before it have their numbers.
        parameters (int): Number of parameters of the checkpoint.
        gflops (float): GFLOPs of the checkpoint at the benchmark's image size.
        file_mb (float | None): Size of the file or folder in MB (1e6 bytes).
        latency_ms (float | None): Median of the forward pass of one image.
        p95_ms (float | None): 95th percentile of the same.
        total_ms (float | None): Median with letterbox and NMS.
        total_p95_ms (float | None): 95th percentile of the same.
        times_first (float | None): `total_ms` over that of the table's first row.
        images_per_s (float | None): Throughput with letterbox and NMS, in batches.
        peak_mb (float | None): Peak resident memory of its process, Python and torch included.
        added_mb (float | None): Peak memory less that before the model was loaded, with the images read.
        map50 (float | None): mAP50 on the validation split, 0 to 1.
        map50_95 (float | None): mAP50-95 on the validation split, 0 to 1.
        runs (int): Number of timed runs.
        other_cores (float | None): Largest number of cores that other processes kept busy during a turn.
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


def row_of(cell: dict[str, Any], batch: int) -> BenchmarkRow:
    """Return the row of a measured or failed cell.

    Args:
        cell (dict[str, Any]): Facts, answers of the turns under 'turns', and mAP.
        batch (int): Images in a batch of the throughput.

    Returns:
        (BenchmarkRow): Medians and percentiles over the runs of all turns; `times_first` comes from `ratios`.
    """
    facts: dict[str, Any] = {k: cell.get(k) for k in ("model", "format", "parameters", "gflops", "file_mb", "reason")}
    turns = cell.get("turns", {}).values()
    if not turns:
        return BenchmarkRow(**facts)
    forward, total = (np.array([x for t in turns for x in t[k]]) for k in ("forward", "total"))
    batches = [x for t in turns for x in t.get("batches", t["total"])]
    memory: dict[str, Any] = {k: [t[k] for t in turns if t[k] is not None] for k in ("peak_mb", "added_mb")}
    return BenchmarkRow(
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


def ratios(rows: Sequence[BenchmarkRow]) -> list[BenchmarkRow]:
    """Return the rows with `times_first`: the ratio of each total to the first row's.

    Args:
        rows (Sequence[BenchmarkRow]): The rows.

    Returns:
        (list[BenchmarkRow]): None where either total is missing.
    """
    first = rows[0].total_ms if rows else None
    return [replace(r, times_first=r.total_ms / first if first and r.total_ms else None) for r in rows]


def table(rows: Sequence[BenchmarkRow]) -> str:
    """Return the rows as text.

    Args:
        rows (Sequence[BenchmarkRow]): The rows, one or more.

    Returns:
        (str): A heading and a line for each row.
    """
    widths = max(len(r.model) for r in rows), max(len(r.format) for r in rows)
    lines = [f"{'model':{widths[0]}}  {'format':{widths[1]}}" + "".join(f"  {h:>{_width(h)}}" for h, *_ in COLUMNS)]
    for row in rows:
        line = f"{row.model:{widths[0]}}  {row.format:{widths[1]}}"
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


def as_csv(rows: Sequence[BenchmarkRow]) -> str:
    """Return the rows as CSV.

    Args:
        rows (Sequence[BenchmarkRow]): The rows.

    Returns:
        (str): The names of the attributes in the first line.
    """
    return csv_text([f.name for f in fields(BenchmarkRow)], map(astuple, rows))


def draw(rows: Sequence[BenchmarkRow], path: Path, title: str) -> bool:
    """Plot mAP50-95 over latency, a colour for each model and a marker for each format.

    Args:
        rows (Sequence[BenchmarkRow]): The rows.
        path (Path): The PNG file.
        title (str): Title of the plot.

    Returns:
        (bool): False if no row has both, and there is no file.
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
        median, p95 = float(row.total_ms or 0), float(row.total_p95_ms or 0)
        error = np.array([[0.0], [max(p95 - median, 0.0)]])
        style: dict[str, Any] = {"fmt": marker[row.format], "color": colour[row.model], "markersize": 9, "alpha": 0.85}
        axes.errorbar([median], [float(row.map50_95 or 0)], xerr=error, capsize=2, elinewidth=0.8, **style)
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
