"""The options of a comparison; the settings of DS2D2 and of Ultralytics' training come beside them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ds2d2_yolo.config import checks as ok
from ds2d2_yolo.config.options import Options, option

ARMS = "teacher,plain,distill_model,ds2d2"


def _wrong_seeds(value: Any) -> str | None:
    """Return what is wrong with one seed or a list of them."""
    seeds = list(value) if isinstance(value, (list, tuple)) else [value]
    if not seeds or any(ok.integer(0)(seed) for seed in seeds):
        return "must be whole numbers of at least 0, such as seeds=0,1,2"
    twice = sorted({seed for seed in seeds if seeds.count(seed) > 1})
    return f"names {', '.join(map(str, twice))} twice" if twice else None


def _wrong_arms(value: Any) -> str | None:
    """Return what is wrong with the form of a list of arms; their names are checked where they are read."""
    texts = value if isinstance(value, (list, tuple)) else [value]
    if texts and all(isinstance(text, (str, Path)) and str(text).strip() for text in texts):
        return None
    return f"must name arms, such as arms={ARMS}"


SEEDS = ok.Check("whole numbers, 0 or more", _wrong_seeds)
NAMES = ok.Check("names, 'name:key=value;key=value' (quoted), or a YAML", _wrong_arms)


@dataclass(frozen=True)
class CompareOptions(Options):
    """Options of a comparison, validated when made.

    Attributes:
        teacher (str | None): Trained checkpoint (.pt) of the big model.
        student (str | None): Model YAML or checkpoint that every arm but `teacher` trains.
        data (str | None): Data-set YAML.
        arms (str | list[str]): Arms, see `arms.read_arms`.
        seeds (int | list[int]): Seeds; every arm runs with each of them.
        baseline (str): Arm from which the differences of the others are taken.
        level (float): Confidence level of their intervals, above 0 and under 1.
        parallel (int | None): Runs at the same time; None is what the device has room for, see `parallel.room`.
        threads (int | None): CPU threads of a run; None is `OMP_NUM_THREADS` where it is set, otherwise on a CPU the
            cores over `parallel`, and 1 without that.
        results (str | None): Raw results of earlier comparisons, to make tables and plot of and train nothing.
        project (str): Folder of the comparison's folder.
        name (str): Name of the comparison's folder.
        resume (bool): Accepted for habit's sake: the same command goes on anyway.
        safe (bool): Whether models and data sets that could run code are refused, in the processes of the runs too.

    Raises:
        BadUseError: If any value is wrong; all of them are named in one line.

    Examples:
        >>> CompareOptions(seeds=[0, 1]).all_seeds
        (0, 1)
    """

    teacher: str | None = option(None, ok.optional(ok.path), "trained checkpoint (.pt) of the big model, needed")
    student: str | None = option(None, ok.optional(ok.path), "model YAML or checkpoint that the arms train, needed")
    data: str | None = option(None, ok.optional(ok.path), "data-set YAML, needed")
    arms: str | list[str] = option(
        ARMS, NAMES, "teacher, plain, distill_model, ds2d2, explicit, implicit, or your own; a YAML names many"
    )
    seeds: int | list[int] = option((0, 1, 2), SEEDS, "seeds that every arm runs with")
    baseline: str = option("plain", ok.text, "arm that the others are compared with")
    level: float = option(0.95, ok.Check("0 to 1", lambda v: _wrong_level(v)), "confidence level of the intervals")
    parallel: int | None = option(
        None, ok.optional(ok.integer(1)), "runs at the same time, None is what there is room for"
    )
    threads: int | None = option(
        None, ok.optional(ok.integer(1)), "CPU threads of a run, None is 1 on a CPU, or its cores over parallel="
    )
    results: str | None = option(None, ok.optional(ok.path), "raw results (.csv): tables and plot anew, no training")
    project: str = option("runs", ok.path, "folder of the comparison's folder")
    name: str = option("compare", ok.path, "name of the comparison's folder")
    resume: bool = option(False, ok.flag, "accepted for habit's sake: the same command goes on anyway")
    safe: bool = option(False, ok.flag, ok.SAFE)

    def _contradictions(self) -> list[str]:
        """Return what is missing for a comparison that trains."""
        if self.results is not None:
            return []
        missing = [f"{k}=" for k in ("teacher", "student", "data") if getattr(self, k) is None]
        said = "missing: ds2d2-yolo compare teacher=T.pt student=S.yaml data=D.yaml, or results=results.csv"
        return [f"{', '.join(missing)} {said}"] if missing else []

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """(tuple[int, ...]): The seeds in their order."""
        return tuple(self.seeds) if isinstance(self.seeds, (list, tuple)) else (self.seeds,)

    @property
    def folder(self) -> Path:
        """(Path): The comparison's folder, absolute: Ultralytics would put a relative one elsewhere."""
        return Path(self.project, self.name).expanduser().resolve()


def _wrong_level(value: Any) -> str | None:
    """Return what is wrong with a confidence level."""
    return ok.number(0, 1, above=True)(value) or ("must be under 1" if value == 1 else None)
