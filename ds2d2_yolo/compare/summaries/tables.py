"""The tables of a comparison in Markdown, and remarks on how far they can be trusted."""

from __future__ import annotations

from collections.abc import Iterable

from ds2d2_yolo.compare.summaries.statistics import PairedDifference, SampleStatistics
from ds2d2_yolo.compare.summaries.summary import METRICS, TEACHER_SEED, Summary
from ds2d2_yolo.utils.tables import markdown_table

WEIGHTS = {"last": "last.pt, the average at the end", "best": "best.pt, chosen on the measured images"}
MIN_OBJECTS = 30  # groups with fewer objects are named as small
MIN_MAP50 = 0.001  # a model below it has learnt to find nothing
SPLITS = {"size": "size (square root of area, pixels)", "crowding": "crowding", "orientation": "orientation"}


def report(summary: Summary) -> str:
    """Return all tables with headings and remarks.

    Args:
        summary (Summary): The statistics.

    Returns:
        (str): Markdown.
    """
    parts = [f"# Comparison with {summary.baseline}", heading(summary)]
    for weights, title in WEIGHTS.items():
        if any(row.weights == weights for row in summary.rows):
            parts += [f"## {title}", overall(summary, weights)]
    for metric, name in METRICS.items():
        for by, title in SPLITS.items():
            if table := grouped(summary, "last", by, metric):
                parts += [f"## {name} by {title}, last.pt", table]
    return "\n\n".join([*parts, "## Cost", cost(summary), "## How to read it", "\n".join(remarks(summary))]) + "\n"


def heading(summary: Summary) -> str:
    """Return one sentence that says what was compared."""
    row = next((row for row in summary.rows if row.teacher), summary.rows[0])
    return (
        f"Student {row.student}, teacher {row.teacher}, data {row.data}, {row.imgsz} px, {row.epochs} epochs. "
        f"Differences are arm minus {summary.baseline} of the same seed, with {percent(summary.level)} confidence "
        "intervals."
    )


def overall(summary: Summary, weights: str) -> str:
    """Return the table of all arms over all objects.

    Args:
        summary (Summary): The statistics.
        weights (str): 'last' or 'best'.

    Returns:
        (str): Markdown.
    """
    names = list(METRICS.values())
    header = ["arm", "seeds", *(f"{n}{x}" for n in names for x in ("", " difference")), "gap closed"]
    table = []
    for arm in summary.arms:
        cells = [arm, "-" if TEACHER_SEED in summary.seeds(arm) else str(len(summary.seeds(arm)))]
        for metric in METRICS:
            entry = summary.entry(weights, "all", "all", metric, arm)
            cells += ["-", "-"] if entry is None else [_mean_and_sd(entry.values), interval(entry.difference)]
        table.append([*cells, _gap_closed(summary, weights, arm)])
    return markdown_table(header, table)


def grouped(summary: Summary, weights: str, by: str, metric: str) -> str:
    """Return the table of all arms by object group: values of the baseline and the teacher, differences of the others.

    Args:
        summary (Summary): The statistics.
        weights (str): 'last' or 'best'.
        by (str): Property that objects are grouped by.
        metric (str): 'map50' or 'map50_95'.

    Returns:
        (str): Markdown, '' if there are no such groups.
    """
    arms = [arm for arm in summary.arms if arm != summary.baseline]
    teachers = {arm for arm in arms if TEACHER_SEED in summary.seeds(arm)}
    table = []
    for group in (name for kind, name in summary.groups() if kind == by):
        objects = next(row.objects for row in summary.rows if (row.by, row.group) == (by, group))
        entries = {a: summary.entry(weights, by, group, metric, a) for a in (summary.baseline, *arms)}
        cells = [
            "-"
            if e is None
            else _mean_and_sd(e.values)
            if arm in {summary.baseline, *teachers}
            else interval(e.difference)
            for arm, e in entries.items()
        ]
        table.append([group, str(objects), *cells])
    return markdown_table(["group", "objects", summary.baseline, *arms], table) if table else ""


def cost(summary: Summary) -> str:
    """Return the table of time and memory; times of runs that shared the machine with others are left out."""
    table = []
    for arm in summary.arms:
        runs = {row.seed: row for row in summary.rows if row.arm == arm and row.seed != TEACHER_SEED}.values()
        if runs:
            timed = [row for row in runs if row.parallel == 1]
            step = f"{_mean(r.step_seconds for r in timed):.3f} s" if timed else "not alone"
            training = f"{_mean(r.train_seconds for r in timed) / 60:.1f} min" if timed else "not alone"
            longest = max(r.amplifier_seconds for r in runs)
            amplifier = "-" if not longest else f"{longest / 60:.1f} min" if timed else "not alone"
            memory = f"{_mean(r.peak_memory_mb for r in runs):.0f} MB"
            table.append([arm, str(len(timed)), step, training, amplifier, memory])
    return markdown_table(["arm", "runs alone", "step", "training", "amplifier or labels, once", "peak memory"], table)


def remarks(summary: Summary) -> list[str]:
    """Return remarks on the tables, one line each."""
    trained = [arm for arm in summary.arms if TEACHER_SEED not in summary.seeds(arm)]
    counts = {len(summary.seeds(arm)) for arm in trained}
    numbers = f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    lines = [
        f"- {numbers} seed{'' if counts == {1} else 's'} an arm. Values are mean and standard deviation over seeds; an "
        "interval is that of the mean paired difference by Student's t, and holds for other seeds of this setup, not "
        "for other data, teachers or schedules."
    ]
    if min(counts) == 1:
        lines.append("- One seed gives no spread and no interval: its difference may be chance alone.")
    if len(trained) > 2 or max(counts) > 1:
        lines.append(
            f"- Of intervals at {percent(summary.level)}, {percent(1 - summary.level)} miss the true mean by chance; "
            "the tables hold many."
        )
    objects = {(row.by, row.group): row.objects for row in summary.rows if row.by in SPLITS and row.objects}
    if small := [f"{by} {group} ({n})" for (by, group), n in objects.items() if n < MIN_OBJECTS]:
        lines.append(f"- Groups of few objects swing by chance that seeds do not show: {', '.join(small)}.")
    if max(row.map50 for row in summary.rows if row.by == "all" and row.seed != TEACHER_SEED) < MIN_MAP50:
        lines.append("- No arm has learnt to find anything yet: differences of 0 say nothing.")
    lines.append("- 'gap closed' is (arm - baseline) / (teacher - baseline) of the mean mAP50-95 over the arm's seeds.")
    return [*lines, *_run_remarks(summary)]


def percent(share: float) -> str:
    """Return a share such as 0.95 as '95 %'."""
    return f"{100 * share:.4g} %"


def _run_remarks(summary: Summary) -> list[str]:
    """Return remarks on whether the runs are pairs and their times comparable."""
    lines = []
    runs = {(row.arm, row.seed): row for row in summary.rows if row.seed != TEACHER_SEED}
    for column, name in (("initial_weights", "first weights"), ("first_epoch", "data of the first epoch")):
        by_seed: dict[int, set[str]] = {}
        for (_, seed), row in runs.items():
            by_seed.setdefault(seed, set()).add(getattr(row, column))
        unpaired = sorted(seed for seed, hashes in by_seed.items() if len(hashes) > 1)
        if unpaired:
            lines.append(f"- Not paired: arms of seed {', '.join(map(str, unpaired))} differ in the {name}.")
    if not lines:
        lines.append("- Paired: the arms of a seed began with the same weights and saw the same first epoch.")
    if any(row.parallel > 1 for row in runs.values()):
        lines.append("- Runs that others may have run beside have no times here: run with parallel=1 to compare them.")
    if any(row.sessions > 1 for row in runs.values()):
        resumed = [f"{arm} seed {seed}" for (arm, seed), row in runs.items() if row.sessions > 1]
        lines.append(
            f"- Cut off and gone on with: {', '.join(resumed)}. That changes the order of the data, but not in DS2D2's "
            "runs on a CPU with exact_resume."
        )
    for column, name in (("hardware", "machine"), ("versions", "set of versions"), ("revision", "source revision")):
        values = sorted({getattr(row, column) for row in runs.values()})
        if len(values) > 1:
            lines.append(f"- More than one {name}: {' | '.join(values)}.")
    return lines


def _gap_closed(summary: Summary, weights: str, arm: str) -> str:
    """Return the share of the mAP50-95 gap between baseline and teacher that an arm closes, at the arm's seeds."""
    teacher = next((a for a in summary.arms if TEACHER_SEED in summary.seeds(a)), None)
    student_entry, teacher_entry = (summary.entry(weights, "all", "all", "map50_95", a or "") for a in (arm, teacher))
    if student_entry is None or teacher_entry is None or student_entry.difference is None:
        return "-"
    seeds = summary.seeds(arm)
    baseline = _mean(
        row.map50_95
        for row in summary.rows
        if (row.arm, row.weights, row.by) == (summary.baseline, weights, "all") and row.seed in seeds
    )
    gap = teacher_entry.values.mean - baseline
    return f"{student_entry.difference.mean / gap:.0%}" if gap > 0 else "-"


def _mean_and_sd(values: SampleStatistics) -> str:
    """Return mean and standard deviation."""
    return f"{values.mean:.3f}" + (f" ± {values.sd:.3f}" if values.sd is not None else "")


def interval(difference: PairedDifference | None) -> str:
    """Return a mean difference with its confidence interval."""
    if difference is None:
        return "-"
    if difference.low is None or difference.high is None:
        return f"{difference.mean:+.3f}"
    return f"{difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"


def _mean(values: Iterable[float]) -> float:
    """Return the mean of at least one value."""
    numbers = list(values)
    return sum(numbers) / len(numbers)
