"""The statistics of raw results: for each arm, group and metric its spread and its difference from the baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from math import isnan
from pathlib import Path

from ds2d2_yolo.compare.results import Result, write_csv
from ds2d2_yolo.compare.statistics import Difference, Spread, paired_difference, spread
from ds2d2_yolo.errors import BadUseError

METRICS = {"map50": "mAP50", "map50_95": "mAP50-95"}
TEACHER = -1  # its seed


@dataclass(frozen=True)
class Line:
    """One arm in one group of objects by one metric.

    Attributes:
        weights (str): 'last' or 'best'; the teacher's one checkpoint counts for both.
        by (str): What objects are split by.
        group (str): The part.
        metric (str): 'map50' or 'map50_95'.
        arm (str): The arm.
        values (Spread): Over its seeds.
        difference (Difference | None): Of its pairs with the baseline; None for the baseline and the teacher, and
            where no seed is shared.
    """

    weights: str
    by: str
    group: str
    metric: str
    arm: str
    values: Spread
    difference: Difference | None


@dataclass(frozen=True)
class Summary:
    """All statistics of a comparison.

    Attributes:
        rows (tuple[Result, ...]): The raw results that they were made of.
        baseline (str): The arm that differences are taken from.
        level (float): Confidence level of the intervals.
        lines (tuple[Line, ...]): The statistics.
    """

    rows: tuple[Result, ...]
    baseline: str
    level: float
    lines: tuple[Line, ...]

    @property
    def arms(self) -> tuple[str, ...]:
        """(tuple[str, ...]): The arms: teacher and baseline first, the others as they come."""
        names = dict.fromkeys(row.arm for row in self.rows)
        first = [n for n in (*(r.arm for r in self.rows if r.seed == TEACHER), self.baseline) if n in names]
        return tuple(dict.fromkeys([*first, *names]))

    def seeds(self, arm: str) -> tuple[int, ...]:
        """Return the seeds of an arm."""
        return tuple(sorted({row.seed for row in self.rows if row.arm == arm}))

    def groups(self) -> tuple[tuple[str, str], ...]:
        """Return what objects are split by, and the parts that have any, in the order of the raw results."""
        return tuple(dict.fromkeys((row.by, row.group) for row in self.rows if row.objects))

    def line(self, weights: str, by: str, group: str, metric: str, arm: str) -> Line | None:
        """Return the statistics of one arm, None where it has none."""
        wanted = weights, by, group, metric, arm
        return next((x for x in self.lines if (x.weights, x.by, x.group, x.metric, x.arm) == wanted), None)

    def write(self, file: Path) -> None:
        """Write the statistics as CSV, whole or not at all."""
        numbers = [f.name for f in fields(Difference)]
        columns = ["weights", "by", "group", "metric", "arm", "seeds", "mean", "sd", "baseline", "level",
                   *(f"difference_{n}" for n in numbers)]  # fmt: skip
        table = []
        for x in self.lines:
            row = {c: getattr(x, c, None) for c in columns[:5]} | {"seeds": x.values.n, "mean": x.values.mean}
            row |= {"sd": x.values.sd, "baseline": self.baseline, "level": self.level}
            difference = asdict(x.difference) if x.difference else {}
            table.append(row | {f"difference_{k}": v for k, v in difference.items()})
        write_csv(file, columns, table)


def summarise(rows: Sequence[Result], baseline: str, level: float) -> Summary:
    """Return the statistics of raw results.

    Args:
        rows (Sequence[Result]): Raw results; of one data set, teacher, student and schedule. Rows of runs without a
            teacher may have none named, in `teacher` and `teacher_hash`: they go with any.
        baseline (str): The arm that differences are taken from.
        level (float): Confidence level.

    Returns:
        (Summary): Of every arm, group, metric and checkpoint.

    Raises:
        BadUseError: If the rows are not of one comparison, or none is of the baseline.
    """
    _refuse_mixed(rows, baseline)
    values: dict[tuple[str, str, str, str, str], dict[int, float]] = {}
    for row in rows:
        for weights in ("last", "best") if row.seed == TEACHER else (row.weights,):
            for metric in METRICS:
                value = getattr(row, metric)
                if not isnan(value):  # a group without objects has none
                    values.setdefault((weights, row.by, row.group, metric, row.arm), {})[row.seed] = value
    lines = []
    for key, of in values.items():
        base = values.get((*key[:4], baseline), {})
        alone = key[4] == baseline or TEACHER in of
        lines.append(Line(*key, spread(list(of.values())), None if alone else paired_difference(of, base, level)))
    return Summary(tuple(rows), baseline, level, tuple(lines))


def _refuse_mixed(rows: Sequence[Result], baseline: str) -> None:
    """Refuse rows that cannot be compared."""
    arms = sorted({row.arm for row in rows})
    if baseline not in arms:
        raise BadUseError(f"baseline={baseline} has no results: there are {', '.join(arms)}")
    for column in ("data_hash", "teacher_hash", "student_hash", "imgsz", "epochs"):
        found = sorted({str(getattr(row, column)) for row in rows if column != "teacher_hash" or row.teacher_hash})
        if len(found) > 1:
            raise BadUseError(f"the results are not of one comparison: {column} is {' and '.join(found)}")
    for arm in arms:
        if len({row.settings_hash for row in rows if row.arm == arm}) > 1:
            raise BadUseError(f"the results are not of one comparison: arm {arm} was run with different settings")
    twice = {(r.arm, r.seed, r.weights, r.by, r.group) for r in rows}
    if len(twice) < len(rows):
        raise BadUseError("the results hold a run twice: leave one row for each arm, seed, weights and group")
