"""The tables of a comparison, in Markdown that reads on a screen too, and what they may be read as."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ds2d2_yolo.compare.statistics import Difference, Spread
from ds2d2_yolo.compare.summary import METRICS, TEACHER, Summary

WEIGHTS = {"last": "last.pt, the average at the end", "best": "best.pt, chosen on the measured images"}
FEW = 30  # objects under which a group is named as small
NOTHING = 0.001  # mAP50 under which a model finds nothing
SPLITS = {"size": "size (square root of area, pixels)", "crowding": "crowding", "orientation": "orientation"}


def report(summary: Summary) -> str:
    """Return all tables with what is said of them.

    Args:
        summary (Summary): The statistics.

    Returns:
        (str): Markdown.
    """
    parts = [f"# Comparison with {summary.baseline}", heading(summary)]
    for weights, said in WEIGHTS.items():
        if not any(row.weights == weights for row in summary.rows):
            continue
        parts += [f"## {said}", overall(summary, weights)]
    for metric, name in METRICS.items():
        for by, said in SPLITS.items():
            if found := grouped(summary, "last", by, metric):
                parts += [f"## {name} by {said}, last.pt", found]
    return "\n\n".join([*parts, "## Cost", cost(summary), "## How to read it", "\n".join(remarks(summary))]) + "\n"


def heading(summary: Summary) -> str:
    """Return what was compared, in one sentence."""
    row = next((row for row in summary.rows if row.teacher), summary.rows[0])
    return (
        f"Student {row.student}, teacher {row.teacher}, data {row.data}, {row.imgsz} px, {row.epochs} epochs. "
        f"Differences are arm minus {summary.baseline} of the same seed, with {percent(summary.level)} confidence "
        "intervals."
    )


def overall(summary: Summary, weights: str) -> str:
    """Return the table of the arms over all objects.

    Args:
        summary (Summary): The statistics.
        weights (str): 'last' or 'best'.

    Returns:
        (str): Markdown.
    """
    names = list(METRICS.values())
    head = ["arm", "seeds", *(f"{n}{x}" for n in names for x in ("", " difference")), "gap closed"]
    table = []
    for arm in summary.arms:
        cells = [arm, "-" if TEACHER in summary.seeds(arm) else str(len(summary.seeds(arm)))]
        for metric in METRICS:
            line = summary.line(weights, "all", "all", metric, arm)
            cells += ["-", "-"] if line is None else [_spread(line.values), _difference(line.difference)]
        table.append([*cells, _gap(summary, weights, arm)])
    return markdown(head, table)


def grouped(summary: Summary, weights: str, by: str, metric: str) -> str:
    """Return the table of the arms by groups of objects: the baseline's value, and the others' differences.

    Args:
        summary (Summary): The statistics.
        weights (str): 'last' or 'best'.
        by (str): What objects are split by.
        metric (str): 'map50' or 'map50_95'.

    Returns:
        (str): Markdown, '' where nothing is split so.
    """
    arms = [arm for arm in summary.arms if arm != summary.baseline]
    table = []
    for of, group in summary.groups():
        if of != by:
            continue
        objects = next(row.objects for row in summary.rows if (row.by, row.group) == (of, group))
        line = summary.line(weights, by, group, metric, summary.baseline)
        cells = [group, str(objects), "-" if line is None else _spread(line.values)]
        for arm in arms:
            line = summary.line(weights, by, group, metric, arm)
            teacher = TEACHER in summary.seeds(arm)
            cells.append("-" if line is None else _spread(line.values) if teacher else _difference(line.difference))
        table.append(cells)
    return markdown(["group", "objects", summary.baseline, *arms], table) if table else ""


def cost(summary: Summary) -> str:
    """Return the table of time and memory; times of runs that were not alone are left out."""
    table = []
    for arm in summary.arms:
        runs = {row.seed: row for row in summary.rows if row.arm == arm and row.seed != TEACHER}.values()
        if runs:
            alone = [row for row in runs if row.parallel == 1]
            step = f"{_mean(r.step_seconds for r in alone):.3f} s" if alone else "not alone"
            whole = f"{_mean(r.train_seconds for r in alone) / 60:.1f} min" if alone else "not alone"
            longest = max(r.amplifier_seconds for r in runs)
            amplifier = "-" if not longest else f"{longest / 60:.1f} min" if alone else "not alone"
            memory = f"{_mean(r.peak_memory_mb for r in runs):.0f} MB"
            table.append([arm, str(len(alone)), step, whole, amplifier, memory])
    return markdown(["arm", "runs alone", "step", "training", "amplifier, once", "peak memory"], table)


def remarks(summary: Summary) -> list[str]:
    """Return what the tables may be read as, a line each."""
    trained = [arm for arm in summary.arms if TEACHER not in summary.seeds(arm)]
    counts = {len(summary.seeds(arm)) for arm in trained}
    numbers = f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    said = [
        f"- {numbers} seed{'' if counts == {1} else 's'} an arm. Values are mean and standard deviation over seeds; an "
        "interval is that of the mean paired difference by Student's t, and holds for other seeds of this setup, not "
        "for other data, teachers or schedules."
    ]
    if min(counts) == 1:
        said.append("- One seed gives no spread and no interval: its difference may be chance alone.")
    if len(trained) > 2 or max(counts) > 1:
        said.append(
            f"- Of intervals at {percent(summary.level)}, {percent(1 - summary.level)} miss the true mean by chance; "
            "the tables hold many."
        )
    objects = {(row.by, row.group): row.objects for row in summary.rows if row.by in SPLITS and row.objects}
    if few := [f"{by} {group} ({n})" for (by, group), n in objects.items() if n < FEW]:
        said.append(f"- Groups of few objects swing by chance that seeds do not show: {', '.join(few)}.")
    if max(row.map50 for row in summary.rows if row.by == "all" and row.seed != TEACHER) < NOTHING:
        said.append("- No arm has learnt to find anything yet: differences of 0 say nothing.")
    said.append("- 'gap closed' is (arm - baseline) / (teacher - baseline) of the mean mAP50-95 over the arm's seeds.")
    return [*said, *_doubts(summary)]


def markdown(head: Sequence[str], table: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown, its columns aligned: words to the left in the first, the others to the right."""
    rows = [list(row) for row in table]
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    rule = ["-" * w if i == 0 else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    lines = ([c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
             for row in (head, rule, *rows))  # fmt: skip
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def percent(share: float) -> str:
    """Return a share such as 0.95 as '95 %'."""
    return f"{100 * share:.4g} %"


def _doubts(summary: Summary) -> list[str]:
    """Return what speaks against taking the runs as pairs, or their times as comparable."""
    said = []
    runs = {(row.arm, row.seed): row for row in summary.rows if row.seed != TEACHER}
    for column, name in (("initial_weights", "first weights"), ("first_epoch", "data of the first epoch")):
        by_seed: dict[int, set[str]] = {}
        for (_, seed), row in runs.items():
            by_seed.setdefault(seed, set()).add(getattr(row, column))
        apart = sorted(seed for seed, found in by_seed.items() if len(found) > 1)
        if apart:
            said.append(f"- Not paired: arms of seed {', '.join(map(str, apart))} differ in the {name}.")
    if not said:
        said.append("- Paired: the arms of a seed began with the same weights and saw the same first epoch.")
    if any(row.parallel > 1 for row in runs.values()):
        said.append("- Runs that others may have run beside have no times here: run with parallel=1 to compare them.")
    if any(row.sessions > 1 for row in runs.values()):
        cut = [f"{arm} seed {seed}" for (arm, seed), row in runs.items() if row.sessions > 1]
        said.append(
            f"- Cut off and gone on with: {', '.join(cut)}. That changes the order of the data, but not in DS2D2's "
            "runs on a CPU with exact_resume."
        )
    for column, name in (("hardware", "machine"), ("versions", "set of versions"), ("revision", "source revision")):
        found = sorted({getattr(row, column) for row in runs.values()})
        if len(found) > 1:
            said.append(f"- More than one {name}: {' | '.join(found)}.")
    return said


def _gap(summary: Summary, weights: str, arm: str) -> str:
    """Return which part of the way from baseline to teacher an arm has gone, with the baseline at the arm's seeds."""
    teacher = next((a for a in summary.arms if TEACHER in summary.seeds(a)), None)
    mine, best = (summary.line(weights, "all", "all", "map50_95", a or "") for a in (arm, teacher))
    if mine is None or best is None or mine.difference is None:
        return "-"
    gained = mine.difference.mean
    seeds = summary.seeds(arm)
    base = _mean(
        row.map50_95
        for row in summary.rows
        if (row.arm, row.weights, row.by) == (summary.baseline, weights, "all") and row.seed in seeds
    )
    way = best.values.mean - base
    return f"{gained / way:.0%}" if way > 0 else "-"


def _spread(values: Spread) -> str:
    """Return mean and standard deviation."""
    return f"{values.mean:.3f}" + (f" ± {values.sd:.3f}" if values.sd is not None else "")


def _difference(difference: Difference | None) -> str:
    """Return a mean difference with its interval."""
    if difference is None:
        return "-"
    if difference.low is None or difference.high is None:
        return f"{difference.mean:+.3f}"
    return f"{difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"


def _mean(values: Iterable[float]) -> float:
    """Return the mean of at least one value."""
    each = list(values)
    return sum(each) / len(each)
