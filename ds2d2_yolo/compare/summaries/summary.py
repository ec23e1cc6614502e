"""Statistics of raw results: mean and difference from the baseline of each arm, object group and metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from math import isnan
from pathlib import Path

from ds2d2_yolo.compare.results import RunResult
from ds2d2_yolo.compare.summaries.statistics import (
    PairedDifference,
    SampleStatistics,
    paired_difference,
    sample_statistics,
)
from ds2d2_yolo.errors import BadUseError
from ds2d2_yolo.utils.tables import write_csv

METRICS = {"map50": "mAP50", "map50_95": "mAP50-95"}
TEACHER_SEED = -1  # in the rows of the teacher, which is not trained


@dataclass(frozen=True)
class SummaryEntry:
    """Statistics of one arm on one object group by one metric.

    Attributes:
        weights (str): 'last' or 'best'; the only checkpoint of the teacher counts for both.
        by (str): Property that objects are grouped by.
        group (str): Name of the group.
        metric (str): 'map50' or 'map50_95'.
        arm (str): Name of the arm.
        values (SampleStatistics): Over the arm's seeds.
        difference (PairedDifference | None): From the baseline; None for the baseline, for the teacher, and if no seed
            is shared.
    """

    weights: str
    by: str
    group: str
    metric: str
    arm: str
    values: SampleStatistics
    difference: PairedDifference | None


@dataclass(frozen=True)
class Summary:
    """All statistics of a comparison.

    Attributes:
        rows (tuple[RunResult, ...]): The raw results.
        baseline (str): Arm that the differences are taken from.
        level (float): Confidence level of the intervals.
        entries (tuple[SummaryEntry, ...]): The statistics.
    """

    rows: tuple[RunResult, ...]
    baseline: str
    level: float
    entries: tuple[SummaryEntry, ...]

    @property
    def arms(self) -> tuple[str, ...]:
        """(tuple[str, ...]): The arms: teacher and baseline first, then the others in the order of the rows."""
        names = dict.fromkeys(row.arm for row in self.rows)
        first = [n for n in (*(r.arm for r in self.rows if r.seed == TEACHER_SEED), self.baseline) if n in names]
        return tuple(dict.fromkeys([*first, *names]))

    def seeds(self, arm: str) -> tuple[int, ...]:
        """Return the seeds of an arm in ascending order."""
        return tuple(sorted({row.seed for row in self.rows if row.arm == arm}))

    def groups(self) -> tuple[tuple[str, str], ...]:
        """Return property and name of each group that has objects, in the order of the rows."""
        return tuple(dict.fromkeys((row.by, row.group) for row in self.rows if row.objects))

    def entry(self, weights: str, by: str, group: str, metric: str, arm: str) -> SummaryEntry | None:
        """Return the statistics of one arm, group and metric.

        Args:
            weights (str): 'last' or 'best'.
            by (str): Property that objects are grouped by.
            group (str): Name of the group.
            metric (str): 'map50' or 'map50_95'.
            arm (str): Name of the arm.

        Returns:
            (SummaryEntry | None): The statistics, None if the arm has no value there.
        """
        key = weights, by, group, metric, arm
        return next((x for x in self.entries if (x.weights, x.by, x.group, x.metric, x.arm) == key), None)

    def write(self, file: Path) -> None:
        """Write the statistics as CSV atomically."""
        names = [f.name for f in fields(PairedDifference)]
        header = ["weights", "by", "group", "metric", "arm", "seeds", "mean", "sd", "baseline", "level",
                  *(f"difference_{name}" for name in names)]  # fmt: skip
        table = [
            [x.weights, x.by, x.group, x.metric, x.arm, *astuple(x.values), self.baseline, self.level,
             *(astuple(x.difference) if x.difference else [None] * len(names))]
            for x in self.entries
        ]  # fmt: skip
        write_csv(file, header, table)


def summarise(rows: Sequence[RunResult], baseline: str, level: float) -> Summary:
    """Return the statistics of raw results.

    Args:
        rows (Sequence[RunResult]): Raw results of one data set, teacher, student and schedule. Rows of runs without a
            teacher may leave `teacher` and `teacher_hash` empty: they are compatible with any teacher.
        baseline (str): Arm that the differences are taken from.
        level (float): Confidence level of the intervals.

    Returns:
        (Summary): Statistics of every arm, group, metric and checkpoint.

    Raises:
        BadUseError: If the rows are of different comparisons, or the baseline has none.
    """
    _refuse_mixed(rows, baseline)
    values: dict[tuple[str, str, str, str, str], dict[int, float]] = {}
    for row in rows:
        for weights in ("last", "best") if row.seed == TEACHER_SEED else (row.weights,):
            for metric in METRICS:
                value = getattr(row, metric)
                if not isnan(value):  # a group without objects has none
                    values.setdefault((weights, row.by, row.group, metric, row.arm), {})[row.seed] = value
    entries = []
    for key, by_seed in values.items():
        unpaired = key[4] == baseline or TEACHER_SEED in by_seed
        reference = values.get((*key[:4], baseline), {})
        difference = None if unpaired else paired_difference(by_seed, reference, level)
        entries.append(SummaryEntry(*key, sample_statistics(list(by_seed.values())), difference))
    return Summary(tuple(rows), baseline, level, tuple(entries))


def _refuse_mixed(rows: Sequence[RunResult], baseline: str) -> None:
    """Refuse rows that cannot be compared."""
    arms = sorted({row.arm for row in rows})
    if baseline not in arms:
        raise BadUseError(f"baseline={baseline} has no results: there are {', '.join(arms)}")
    for column in ("data_hash", "teacher_hash", "student_hash", "imgsz", "epochs"):
        values = sorted({str(getattr(row, column)) for row in rows if column != "teacher_hash" or row.teacher_hash})
        if len(values) > 1:
            raise BadUseError(f"the results are not of one comparison: {column} is {' and '.join(values)}")
    for arm in arms:
        if len({row.settings_hash for row in rows if row.arm == arm}) > 1:
            raise BadUseError(f"the results are not of one comparison: arm {arm} was run with different settings")
    distinct = {(r.arm, r.seed, r.weights, r.by, r.group) for r in rows}
    if len(distinct) < len(rows):
        raise BadUseError("the results hold a run twice: leave one row for each arm, seed, weights and group")
