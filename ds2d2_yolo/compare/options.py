"""The options of `compare`; DS2D2 settings and Ultralytics' training settings are accepted beside them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ds2d2_yolo.config import checks as ok
from ds2d2_yolo.config.options import Options, option

ARMS = "teacher,plain,distill_model,ds2d2"


def _seeds_error(value: Any) -> str | None:
    """Return the error of one seed or a list of seeds, None for valid ones."""
    seeds = list(value) if isinstance(value, (list, tuple)) else [value]
    if not seeds or any(ok.integer(0)(seed) for seed in seeds):
        return "must be whole numbers of at least 0, such as seeds=0,1,2"
    repeated = sorted({seed for seed in seeds if seeds.count(seed) > 1})
    return f"names {', '.join(map(str, repeated))} twice" if repeated else None


def _arms_error(value: Any) -> str | None:
    """Return the error of a list of arms that is no text; `read_arms` checks the names."""
    texts = value if isinstance(value, (list, tuple)) else [value]
    if texts and all(isinstance(text, (str, Path)) and str(text).strip() for text in texts):
        return None
    return f"must name arms, such as arms={ARMS}"


def read_slurm(value: Any) -> dict[str, Any]:
    """Return the parameters of Slurm jobs, whole numbers as int.

    Args:
        value (Any): A mapping, or a text 'key=value,key=value', whose values may contain commas; None is empty.

    Returns:
        (dict[str, Any]): The parameters in their order.

    Raises:
        ValueError: If the text is not of that form, or names a key twice.

    Examples:
        >>> read_slurm("partition=gpu,time=240,exclude=n1,n2")
        {'partition': 'gpu', 'time': 240, 'exclude': 'n1,n2'}
    """
    if value is None or isinstance(value, dict):
        return dict(value or {})
    parameters: dict[str, Any] = {}
    for part in re.split(r",(?=\s*\w+\s*=)", str(value)):
        key, equals, text = (word.strip() for word in part.partition("="))
        if not (equals and key and text) or key in parameters:
            raise ValueError(part)
        parameters[key] = int(text) if text.isdecimal() else text
    return parameters


def _slurm_error(value: Any) -> str | None:
    """Return the error of the parameters of Slurm jobs; `launchers.slurm` checks their names."""
    try:
        parameters = read_slurm(value)
    except ValueError:
        return f"must read key=value,key=value, each key once, such as slurm='{SLURM_EXAMPLE}'"
    minutes = parameters.get("time")
    if parameters and ok.integer(1)(minutes):
        return f"needs time=, the minutes of a job, as a whole number, such as slurm='{SLURM_EXAMPLE}'"
    return None


SLURM_EXAMPLE = "partition=gpu,time=240,gpus_per_node=1"
SLURM = ok.Check("'key=value,key=value' (quoted)", _slurm_error)
SEEDS = ok.Check("whole numbers, 0 or more", _seeds_error)
NAMES = ok.Check("names, 'name:key=value;key=value' (quoted), or a YAML", _arms_error)


@dataclass(frozen=True)
class CompareOptions(Options):
    """Options of a comparison, validated on construction.

    Attributes:
        teacher (str | None): Trained checkpoint (.pt) of the large model.
        student (str | None): Model YAML or checkpoint that every arm except `teacher` trains.
        data (str | None): Data-set YAML.
        arms (str | list[str]): Arms, see `arms.read_arms`.
        seeds (int | list[int]): Seeds; every arm runs with each of them.
        baseline (str): Arm that the differences are taken from.
        level (float): Confidence level of the intervals, above 0 and under 1.
        parallel (int | None): Runs at the same time; None is as many as fit on the device, see `workplace.run_slots`.
        threads (int | None): CPU threads of a run; None is `OMP_NUM_THREADS` if it is set, otherwise on a CPU the
            number of cores divided by `parallel`, or 1 without `parallel`; in a Slurm job its `cpus_per_task`.
        launcher (str): What starts the runs: 'local' (processes of this machine) or 'slurm' (jobs of a Slurm cluster).
        slurm (str | dict[str, Any] | None): Parameters of the Slurm jobs, see `read_slurm`.
        results (str | None): Raw results of an earlier comparison: only tables and plot are made.
        project (str): Parent of the comparison's folder.
        name (str): Name of the comparison's folder.
        resume (bool): Accepted but not needed: the same command continues anyway.
        safe (bool): Whether models and data sets that could run code are refused, also in the child processes.

    Raises:
        BadUseError: If any value is wrong; the message names all of them in one line.

    Examples:
        >>> CompareOptions(results="results.csv", seeds=[0, 1]).all_seeds
        (0, 1)
    """

    teacher: str | None = option(None, ok.optional(ok.path), "trained checkpoint (.pt) of the big model, needed")
    student: str | None = option(None, ok.optional(ok.path), "model YAML or checkpoint that the arms train, needed")
    data: str | None = option(None, ok.optional(ok.path), "data-set YAML, needed")
    arms: str | list[str] = option(
        ARMS,
        NAMES,
        "teacher, plain, distill_model, ds2d2, explicit, implicit, pseudo_labels, pkd, cwd, ld, or your own, or a YAML",
    )
    seeds: int | list[int] = option((0, 1, 2), SEEDS, "seeds that every arm runs with")
    baseline: str = option("plain", ok.text, "arm that the others are compared with")
    level: float = option(0.95, ok.Check("0 to 1", lambda v: _level_error(v)), "confidence level of the intervals")
    parallel: int | None = option(
        None, ok.optional(ok.integer(1)), "runs at the same time, None is what there is room for"
    )
    threads: int | None = option(
        None, ok.optional(ok.integer(1)), "CPU threads of a run, None is 1 on a CPU, or its cores over parallel="
    )
    launcher: str = option("local", ok.one_of("local", "slurm"), "what starts the runs: this machine, or Slurm's jobs")
    slurm: str | dict[str, Any] | None = option(
        None, ok.optional(SLURM), "what each Slurm job asks for; time is in minutes, the other names are sbatch's"
    )
    results: str | None = option(None, ok.optional(ok.path), "raw results (.csv): tables and plot anew, no training")
    project: str = option("runs", ok.path, "folder of the comparison's folder")
    name: str = option("compare", ok.path, "name of the comparison's folder")
    resume: bool = option(False, ok.flag, "accepted for habit's sake: the same command goes on anyway")
    safe: bool = option(False, ok.flag, ok.SAFE)

    def _contradictions(self) -> list[str]:
        """Return the missing options of a comparison that trains."""
        if self.results is not None:
            return []
        missing = [f"{k}=" for k in ("teacher", "student", "data") if getattr(self, k) is None]
        usage = "ds2d2-yolo compare teacher=T.pt student=S.yaml data=D.yaml, or results=results.csv"
        if missing:
            return [f"{', '.join(missing)} missing: {usage}"]
        if (self.launcher == "slurm") == bool(self.slurm):
            return []
        needed = "launcher=slurm" if self.slurm else f"slurm=, such as slurm='{SLURM_EXAMPLE}'"
        return [f"{'slurm=' if self.slurm else 'launcher=slurm'} needs {needed}"]

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """(tuple[int, ...]): The seeds in the order of the command."""
        return tuple(self.seeds) if isinstance(self.seeds, (list, tuple)) else (self.seeds,)

    @property
    def folder(self) -> Path:
        """(Path): The comparison's folder, absolute: Ultralytics puts relative ones under its own runs folder."""
        return Path(self.project, self.name).expanduser().resolve()


def _level_error(value: Any) -> str | None:
    """Return the error of a confidence level, None for a valid one."""
    return ok.number(0, 1, above=True)(value) or ("must be under 1" if value == 1 else None)
