"""The plot of a comparison: mean difference of each arm from the baseline by object group, with its interval."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ds2d2_yolo.compare.summaries.summary import METRICS, TEACHER_SEED, Summary
from ds2d2_yolo.compare.summaries.tables import MIN_OBJECTS, percent
from ds2d2_yolo.utils.atomic_files import replacing

SPLITS = ("all", "size", "crowding", "orientation")
MARKERS = "os^Dv"  # one for every ten arms, as there are ten colours


def draw(summary: Summary, file: Path, weights: str = "last") -> None:
    """Draw mean differences with their intervals into a PNG file: one panel for each metric, one row for each group.

    Args:
        summary (Summary): The statistics.
        file (Path): The PNG file.
        weights (str): 'last' or 'best'.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    groups = shown_groups(summary)
    arms = [a for a in summary.arms if a != summary.baseline and TEACHER_SEED not in summary.seeds(a)]
    figure = Figure(figsize=(12, 1.8 + 0.32 * len(groups) * max(1.0, len(arms) / 3)), layout="constrained")
    FigureCanvasAgg(figure)
    panels: Any = figure.subplots(1, len(METRICS), sharey=True)
    for axes, (metric, name) in zip(panels, METRICS.items(), strict=True):
        _panel(axes, summary, weights, metric, groups, arms)
        axes.set_title(name)
        axes.set_xlabel(f"arm minus {summary.baseline}, same seed")
    panels[0].set_yticks(range(len(groups)), [g if by == "all" else f"{by} {g}" for by, g in groups])
    panels[0].invert_yaxis()
    if arms:
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(len(arms), 6))
    row = summary.rows[0]
    figure.suptitle(
        f"{row.student}, {row.data}, {row.epochs} epochs, {weights}.pt: mean of the paired differences and its "
        f"{percent(summary.level)} interval",
        fontsize=10,
    )
    with replacing(file) as temporary, temporary.open("wb") as written:
        figure.savefig(written, format="png", dpi=110)


def shown_groups(summary: Summary) -> list[tuple[str, str]]:
    """Return the groups that are drawn: the intervals of groups with few objects would set the scale of the plot.

    Args:
        summary (Summary): The statistics.

    Returns:
        (list[tuple[str, str]]): Property and name of each group, in the order of `SPLITS`.
    """
    objects = {(row.by, row.group): row.objects for row in summary.rows}
    return [g for by in SPLITS for g in summary.groups() if g[0] == by and (by == "all" or objects[g] >= MIN_OBJECTS)]


def _panel(
    axes: Any, summary: Summary, weights: str, metric: str, groups: list[tuple[str, str]], arms: list[str]
) -> None:
    """Draw the differences of one metric."""
    axes.axvline(0, color="0.4", linewidth=1)
    for place in range(1, len(groups)):
        if groups[place][0] != groups[place - 1][0]:
            axes.axhline(place - 0.5, color="0.85", linewidth=1)
    for number, arm in enumerate(arms):
        offset = (number - (len(arms) - 1) / 2) * 0.8 / max(len(arms), 1)
        differences = [(i + offset, entry.difference) for i, (by, group) in enumerate(groups)
                       if (entry := summary.entry(weights, by, group, metric, arm)) and entry.difference]  # fmt: skip
        color, marker = f"C{number % 10}", MARKERS[number // 10 % len(MARKERS)]
        heights, means = [height for height, _ in differences], [d.mean for _, d in differences]
        axes.plot(means, heights, marker, markersize=4, color=color, label=arm)
        for height, d in differences:
            if d.low is not None and d.high is not None:
                axes.plot([d.low, d.high], [height, height], "-", linewidth=1.5, color=color)
    axes.grid(axis="x", color="0.92")
    axes.set_axisbelow(True)
