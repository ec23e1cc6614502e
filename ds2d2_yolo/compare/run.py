"""The entrance to a comparison: `compare` runs what is not done yet and makes tables and picture of all that is."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ds2d2_yolo.compare.child import RESULT, TASK, read_result
from ds2d2_yolo.compare.options import CompareOptions
from ds2d2_yolo.compare.plan import Plan, arms_as_kept, default_settings, jobs_of, room
from ds2d2_yolo.compare.plot import draw
from ds2d2_yolo.compare.results import Result, read_results
from ds2d2_yolo.compare.schedule import Job, run_jobs
from ds2d2_yolo.compare.state import CompareState, folder_of, rows_in
from ds2d2_yolo.compare.summary import Summary, summarise
from ds2d2_yolo.compare.tables import report
from ds2d2_yolo.config.settings import Settings
from ds2d2_yolo.errors import BadUseError, DS2D2Error
from ds2d2_yolo.utils.atomic_files import write_json, write_whole
from ds2d2_yolo.utils.threads import thread_count, usable_cores

TEXT, TABLE, PICTURE = "compare.md", "summary.csv", "compare.png"
OF_RESULTS = {"results", "baseline", "level"}


@dataclass(frozen=True)
class Checked:
    """What the checks of the arms found that their jobs depend on.

    Attributes:
        step (int | None): Bytes of the hungriest training step, estimated.
        explicit_alone (frozenset[str]): Arms for which teacher and data share no class.
    """

    step: int | None
    explicit_alone: frozenset[str]


@dataclass(frozen=True)
class Comparison:
    """A finished comparison.

    Attributes:
        folder (Path): Where results.csv, summary.csv, compare.md and compare.png lie.
        summary (Summary): Its statistics, with the raw results that they were made of.
        text (str): Its tables, as in compare.md.
    """

    folder: Path
    summary: Summary
    text: str

    def __str__(self) -> str:
        """Return the tables."""
        return f"{self.text}\nIn {self.folder}: results.csv, {TABLE}, {TEXT}, {PICTURE}"


def compare(**keys: Any) -> Comparison:
    """Compare ways to train a student: run every arm with every seed, or make the tables of runs that are done.

    Each run is a process of its own. The same call goes on after any interruption: finished runs are in results.csv
    and are not repeated, the others go on after their last saved epoch. Arms and seeds may be added to a folder.

    Args:
        **keys (Any): See `CompareOptions`; DS2D2 settings, which hold for the arms that are DS2D2's; and Ultralytics
            training settings, which hold for all arms. Several GPUs in `device` take a run each.

    Returns:
        (Comparison): Tables and statistics, written beside results.csv too.

    Raises:
        BadUseError: If anything does not fit, before anything is trained.
        DS2D2Error: If runs failed; the tables of the others are written.

    Examples:
        >>> from ds2d2_yolo.compare import compare
        >>> compare(teacher="t.pt", student="yolov8n-obb.yaml", data="d.yaml", epochs=20)  # doctest: +SKIP
        >>> print(compare(results="runs/compare/results.csv", baseline="distill_model"))  # doctest: +SKIP
    """
    if keys.get("results") is not None:
        return _of_results(keys)
    from ds2d2_yolo.bridge.data.security import refuse_code_in_data, safe_loading
    from ds2d2_yolo.bridge.training.compared_run import TRAIN_KEYS
    from ds2d2_yolo.bridge.upstream.arguments import validate_ultralytics_args
    from ds2d2_yolo.bridge.upstream.compat import check_ultralytics

    options = CompareOptions.of(keys, "compare", passing={*Settings.keys(), *TRAIN_KEYS})
    plan = Plan.of(options, CompareOptions.split(keys)[1])
    check_ultralytics()
    validate_ultralytics_args(plan.keys)
    with safe_loading(options.safe):
        if options.safe:
            refuse_code_in_data(str(options.data))
        failed = _run(plan)
    return _finish(options.folder, options, failed)


def _of_results(keys: Mapping[str, Any]) -> Comparison:
    """Make tables and picture of raw results anew, beside them."""
    options = CompareOptions.of(keys, "compare", passing=set(keys))
    if idle := [f"{k}=" for k in keys if k not in OF_RESULTS | {"verbose"}]:
        raise BadUseError(f"results= trains nothing: leave out {', '.join(idle)}")
    file = Path(str(options.results)).expanduser().resolve()
    return _written(file.parent, summarise(read_results(file), options.baseline, options.level))


def _run(plan: Plan) -> dict[str, str]:
    """Run all that is not done yet and return what failed, with the reason."""
    from ds2d2_yolo.bridge.training.compared_run import identify
    from ds2d2_yolo.bridge.upstream.hardware import devices_of

    o = plan.options
    devices = devices_of(plan.keys.get("device"))
    upstream = any(arm.kind == "distill_model" for arm in plan.arms)
    mixed = len({arm.kind == "ds2d2" for arm in plan.arms if arm.kind != "teacher"}) == 2
    subjects = asdict(identify(str(o.teacher), str(o.student), str(o.data), plan.keys, upstream, mixed))
    state = CompareState(o.folder, plan.fingerprint(subjects), arms_as_kept(plan), default_settings())
    checked = _check_arms(plan, state, subjects, devices[0])
    try:
        o.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(o.folder / ".lock", timeout=0):
            state.begin()
            _collect(plan, state)
            return _run_open(plan, state, subjects, devices, checked)
    except Timeout as e:
        raise BadUseError(f"another process compares in {o.folder}: wait for it, or name another folder") from e


def _run_open(
    plan: Plan, state: CompareState, subjects: dict[str, str], devices: Sequence[str], checked: Checked
) -> dict[str, str]:
    """Run the jobs of all runs that are not done."""
    from ds2d2_yolo.bridge.upstream.hardware import free_memory

    options = plan.options
    threads = options.threads or (_threads_of_a_run(options.parallel) if devices[0] == "cpu" else None)
    memory = {d: free_memory(d) for d in devices if d != "mps"}
    slots = room(devices, usable_cores(), threads or 1, memory, checked.step)
    if options.parallel:
        slots = [devices[i % len(devices)] for i in range(options.parallel)]
    slots = slots[: max(1, len(plan.runs) - _done(plan, state))]  # a run that has no other beside it keeps its times
    jobs = jobs_of(plan, state, subjects, len(slots), threads, checked.explicit_alone)
    if not jobs:
        return {}
    runs = len(plan.runs)
    where = ", ".join(dict.fromkeys(slots))
    print(f"{runs} runs, {len(jobs)} jobs to do, {len(slots)} at a time on {where}: {options.folder}", flush=True)
    threaded = {"OMP_NUM_THREADS": str(threads)} if threads else {}

    def begun(job: Job) -> None:
        print(f"{job.name}: begins, log {job.log}", flush=True)

    def ended(job: Job) -> None:
        said = _keep(job, state)
        print(f"{job.name}: done{said}; {_done(plan, state)} of {runs} runs", flush=True)

    try:
        return run_jobs(jobs, slots, _command, begun, ended, threaded)
    except KeyboardInterrupt:
        said = f"stopped with {_done(plan, state)} of {runs} runs done; the same command goes on"
        print(said, file=sys.stderr, flush=True)
        raise


def _threads_of_a_run(parallel: int | None) -> int:
    """Return the CPU threads of a run where `threads=` names none: `OMP_NUM_THREADS`, or an equal part of the cores."""
    if os.environ.get("OMP_NUM_THREADS"):
        return thread_count()
    return max(1, usable_cores() // parallel) if parallel else 1


def _check_arms(plan: Plan, state: CompareState, subjects: Mapping[str, str], device: str) -> Checked:
    """Check every DS2D2 arm that is still to run as `check` does."""
    from ds2d2_yolo.bridge.api import check

    done = {(row.arm, row.seed) for row in state.rows()}
    open_arms = {arm.name for arm, seed in plan.runs if (arm.name, seed) not in done}
    steps: list[int] = []
    explicit_alone: set[str] = set()
    for arm in plan.arms:
        if arm.kind == "ds2d2" and arm.name in open_arms:
            keys = {**plan.keys, **plan.settings[arm.name], "device": device}
            try:
                facts = check(subjects["teacher"], plan.options.student, subjects["data"], **keys)
            except BadUseError as e:
                raise BadUseError(f"arm {arm.name}: {e}") from e
            if facts.memory is not None and facts.memory.total:
                steps.append(facts.memory.total)
            if not facts.classes.shared:
                explicit_alone.add(arm.name)
    return Checked(max(steps, default=None), frozenset(explicit_alone))


def _done(plan: Plan, state: CompareState) -> int:
    """Return how many of the runs are finished."""
    done = {(row.arm, row.seed) for row in state.rows()}
    return sum((arm.name, seed) in done for arm, seed in plan.runs)


def _command(job: Job, device: str) -> list[str]:
    """Write a job's task and return the command of its process."""
    write_json(job.folder / TASK, job.task)
    (job.folder / RESULT).unlink(missing_ok=True)
    return [sys.executable, "-m", "ds2d2_yolo.compare.child", str(job.folder / TASK), device]


def _collect(plan: Plan, state: CompareState) -> None:
    """Keep results that were left by runs whose parent was killed before it could."""
    for arm, seed in plan.runs:
        rows = [Result(**row) for row in read_result(folder_of(state.folder, arm.name, seed))]
        if rows and not state.done(arm.name, seed):
            state.add(rows)


def _keep(job: Job, state: CompareState) -> str:
    """Keep the result of a job and return what it reached."""
    found = read_result(job.folder)
    if "row" not in job.task:
        return f", {found[0]['reached']}"
    rows = [Result(**row) for row in found]
    state.add(rows)
    whole = next(row for row in rows if row.by == "all")
    return f", mAP50 {whole.map50:.3f}, mAP50-95 {whole.map50_95:.3f}"


def _finish(folder: Path, options: CompareOptions, failed: Mapping[str, str]) -> Comparison:
    """Make tables and picture of the runs that are done, and say which failed."""
    rows = rows_in(folder)
    known = options.baseline in {row.arm for row in rows}
    done = _written(folder, summarise(rows, options.baseline, options.level)) if known else None
    if failed:
        if done is not None:
            print(done, flush=True)
        said = "; ".join(f"{job}: {why}" for job, why in failed.items())
        raise DS2D2Error(f"{len(failed)} failed, the same command tries again ({said})")
    assert done is not None  # the baseline is among the arms
    return done


def _written(folder: Path, summary: Summary) -> Comparison:
    """Write tables and picture."""
    text = report(summary)
    write_whole(folder / TEXT, text + f"\n![differences]({PICTURE})\n")
    summary.write(folder / TABLE)
    draw(summary, folder / PICTURE)
    return Comparison(folder, summary, text)
