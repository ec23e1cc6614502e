"""`compare`: runs all unfinished runs of a comparison and writes tables and plot of all finished ones."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ds2d2_yolo.compare.launchers.child import RESULT_FILE, TASK_FILE, read_result
from ds2d2_yolo.compare.options import CompareOptions
from ds2d2_yolo.compare.plan import ComparePlan, arm_identities, default_settings, make_jobs
from ds2d2_yolo.compare.results import RunResult, read_results
from ds2d2_yolo.compare.schedule import Job, Launcher, run_jobs
from ds2d2_yolo.compare.state import CompareState, read_rows, run_folder
from ds2d2_yolo.compare.summaries.plot import draw
from ds2d2_yolo.compare.summaries.summary import Summary, summarise
from ds2d2_yolo.compare.summaries.tables import report
from ds2d2_yolo.compare.unlabelled import PLAIN_STUDENT, PSEUDO_LABELS, takes_unlabelled
from ds2d2_yolo.compare.workplace import Workplace
from ds2d2_yolo.config.rivals import RIVAL_KEY
from ds2d2_yolo.config.settings import Settings
from ds2d2_yolo.errors import BadUseError, DS2D2Error
from ds2d2_yolo.utils.atomic_files import write_atomically, write_json
from ds2d2_yolo.utils.child_process import child_command
from ds2d2_yolo.utils.progress import tracked

REPORT_FILE, SUMMARY_FILE, PLOT_FILE = "compare.md", "summary.csv", "compare.png"
RESULTS_KEYS = {"results", "baseline", "level"}  # of a command that trains nothing


@dataclass(frozen=True)
class ArmChecks:
    """Results of the arms' pre-flight checks.

    Attributes:
        step_bytes (int | None): Estimated bytes of the largest training step.
        explicit_only (frozenset[str]): Arms for which teacher and data share no class.
    """

    step_bytes: int | None
    explicit_only: frozenset[str]


@dataclass(frozen=True)
class Comparison:
    """A finished comparison.

    Attributes:
        folder (Path): Folder of results.csv, summary.csv, compare.md and compare.png.
        summary (Summary): Statistics and raw results.
        text (str): The tables, as in compare.md.
    """

    folder: Path
    summary: Summary
    text: str

    def __str__(self) -> str:
        """Return the tables and the names of the files."""
        return f"{self.text}\nIn {self.folder}: results.csv, {SUMMARY_FILE}, {REPORT_FILE}, {PLOT_FILE}"


def compare(**keys: Any) -> Comparison:
    """Compare ways to train a student: run every arm with every seed, or make the tables of earlier results.

    Each run is a separate process. The same call continues after any interruption: finished runs are in results.csv and
    are not repeated, the others continue after their last saved epoch. Arms and seeds may be added to a folder.

    Args:
        **keys (Any): Options (see `CompareOptions`); DS2D2 settings for all DS2D2 arms; Ultralytics training settings
            for all arms. With several GPUs in `device`, each of them takes a run.

    Returns:
        (Comparison): Tables and statistics, which are also written to the folder of results.csv.

    Raises:
        BadUseError: If keys, files or the folder do not fit, before anything is trained.
        DS2D2Error: If runs failed; the tables of the others are written.

    Examples:
        >>> from ds2d2_yolo.compare import compare
        >>> compare(teacher="t.pt", student="yolov8n-obb.yaml", data="d.yaml", epochs=20)  # doctest: +SKIP
        >>> print(compare(results="runs/compare/results.csv", baseline="distill_model"))  # doctest: +SKIP
    """
    if keys.get("results") is not None:
        return _from_results(keys)
    from ds2d2_yolo.bridge.data.security import refuse_code_in_data, safe_loading
    from ds2d2_yolo.bridge.training.compared.train_arm import TRAIN_KEYS
    from ds2d2_yolo.bridge.upstream.arguments import validate_ultralytics_args
    from ds2d2_yolo.bridge.upstream.compat import check_ultralytics

    options = CompareOptions.of(keys, "compare", passing={*Settings.keys(), *TRAIN_KEYS})
    plan = ComparePlan.of(options, CompareOptions.split(keys)[1])
    check_ultralytics()
    validate_ultralytics_args(plan.keys)
    with safe_loading(options.safe):
        if options.safe:
            refuse_code_in_data(str(options.data))
        failed = _run_all(plan)
    return _finish(options.folder, options, failed)


def _from_results(keys: Mapping[str, Any]) -> Comparison:
    """Write tables and plot of raw results into their folder."""
    options = CompareOptions.of(keys, "compare", passing=set(keys))
    if unused := [f"{k}=" for k in keys if k not in RESULTS_KEYS | {"verbose"}]:
        raise BadUseError(f"results= trains nothing: leave out {', '.join(unused)}")
    file = Path(str(options.results)).expanduser().resolve()
    return _write_outputs(file.parent, summarise(read_results(file), options.baseline, options.level))


def _run_all(plan: ComparePlan) -> dict[str, str]:
    """Run all unfinished runs and return the reasons of those that failed."""
    from ds2d2_yolo.bridge.training.compared.subjects import identify, unlabelled_hash

    o = plan.options
    place = Workplace.of(plan)
    upstream = any(arm.kind == "distill_model" for arm in plan.arms)
    mixed = len({arm.kind in ("ds2d2", "rival", PSEUDO_LABELS) for arm in plan.arms if arm.kind != "teacher"}) == 2
    rivals = [arm.settings[RIVAL_KEY] for arm in plan.arms if arm.kind == "rival"]
    subjects = asdict(identify(str(o.teacher), str(o.student), str(o.data), plan.keys, upstream, mixed, rivals))
    plan = plan.for_task(subjects["task"])
    images = {
        arm.name: unlabelled_hash(plan.settings[arm.name]["unlabelled"], subjects, plan.keys)
        for arm in plan.arms
        if takes_unlabelled(arm, plan.settings[arm.name])
    }
    state = CompareState(o.folder, plan.fingerprint(subjects), arm_identities(plan, images), default_settings())
    checks = _check_arms(plan, state, subjects, place.check_device)
    try:
        o.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(o.folder / ".lock", timeout=0):
            state.begin()
            # it reads the queue before the collection: a job that ends in between is collected
            launcher = place.make_launcher(job_command)
            _collect_results(plan, state)
            return _run_unfinished(plan, state, subjects, place, launcher, checks)
    except Timeout as e:
        raise BadUseError(f"another process compares in {o.folder}: wait for it, or name another folder") from e


def _run_unfinished(
    plan: ComparePlan, state: CompareState, subjects: dict[str, str], place: Workplace, launcher: Launcher,
    checks: ArmChecks,
) -> dict[str, str]:  # fmt: skip
    """Run the jobs of all unfinished runs."""
    # the times of a run count only if no other run was allowed beside it
    slots = place.slots(plan, checks.step_bytes)[: max(1, len(plan.runs) - _count_finished(plan, state))]
    jobs = make_jobs(plan, state, subjects, len(slots), place.threads, checks.explicit_only)
    if not jobs:
        return {}
    runs = len(plan.runs)
    used = ", ".join(dict.fromkeys(slots)) + (" of Slurm's jobs" if place.on_cluster else "")
    try:
        with tracked("runs", runs, sys.stderr, shown=plan.keys.get("verbose", True), fill=False) as task:
            task.skip(_count_finished(plan, state))
            task.note(f"{len(jobs)} jobs to do, {len(slots)} at a time on {used}: {state.folder}")

            def on_start(job: Job, event: str) -> None:
                task.note(f"{job.name}: {event}, log {job.log}")

            def on_success(job: Job) -> None:
                task.note(f"{job.name}: done, {_store_result(job, state)}")
                task.reach(_count_finished(plan, state))

            return run_jobs(jobs, slots, launcher, on_start, on_success)
    except KeyboardInterrupt:
        finished = _count_finished(plan, state)
        advice = f"the same command goes on{launcher.unfinished()}"
        print(f"stopped with {finished} of {runs} runs done; {advice}", file=sys.stderr, flush=True)
        raise


def _check_arms(plan: ComparePlan, state: CompareState, subjects: Mapping[str, str], device: str) -> ArmChecks:
    """Run the pre-flight check of every arm of DS2D2's trainer that has unfinished runs."""
    from ds2d2_yolo.bridge.api import check

    finished = {(row.arm, row.seed) for row in state.rows()}
    unfinished = {arm.name for arm, seed in plan.runs if (arm.name, seed) not in finished}
    step_bytes: list[int] = []
    explicit_only: set[str] = set()
    for arm in plan.arms:
        if arm.kind in ("ds2d2", PSEUDO_LABELS) and arm.name in unfinished:
            settings = {"unlabelled": False, **plan.settings[arm.name]}
            if arm.kind == PSEUDO_LABELS:
                settings |= PLAIN_STUDENT
            keys = {**plan.keys, **settings, **plan.train_batch(arm), "device": device}
            try:
                facts = check(subjects["teacher"], plan.options.student, subjects["data"], **keys)
            except BadUseError as e:
                raise BadUseError(f"arm {arm.name}: {e}") from e
            if facts.memory is not None and facts.memory.total:
                step_bytes.append(facts.memory.total)
            if not facts.classes.shared and arm.kind == PSEUDO_LABELS:
                raise BadUseError(f"arm {arm.name}: teacher and data share no class: its detections are no labels")
            if not facts.classes.shared:
                explicit_only.add(arm.name)
    return ArmChecks(max(step_bytes, default=None), frozenset(explicit_only))


def _count_finished(plan: ComparePlan, state: CompareState) -> int:
    """Return the number of finished runs."""
    finished = {(row.arm, row.seed) for row in state.rows()}
    return sum((arm.name, seed) in finished for arm, seed in plan.runs)


def job_command(job: Job, device: str) -> list[str]:
    """Write the task file of a job and return the command of its process.

    Args:
        job (Job): The job.
        device (str): Device that it runs on.

    Returns:
        (list[str]): For `subprocess`.
    """
    write_json(job.folder / TASK_FILE, {**job.task, "device": device})
    (job.folder / RESULT_FILE).unlink(missing_ok=True)
    return child_command("ds2d2_yolo.compare.launchers.child", job.folder / TASK_FILE, job.folder / RESULT_FILE)


def _collect_results(plan: ComparePlan, state: CompareState) -> None:
    """Store the results of runs that finished after their parent was killed."""
    for arm, seed in plan.runs:
        rows = [RunResult(**row) for row in read_result(run_folder(state.folder, arm.name, seed))]
        if rows and not state.done(arm.name, seed):
            state.add(rows)


def _store_result(job: Job, state: CompareState) -> str:
    """Store the result of a job and return its scores in words."""
    result = read_result(job.folder)
    if "row" not in job.task:
        return str(result[0]["reached"])
    rows = [RunResult(**row) for row in result]
    state.add(rows)
    overall = next(row for row in rows if row.by == "all")
    return f"mAP50 {overall.map50:.3f}, mAP50-95 {overall.map50_95:.3f}"


def _finish(folder: Path, options: CompareOptions, failed: Mapping[str, str]) -> Comparison:
    """Write tables and plot of the finished runs, and raise an error that names the failed ones."""
    rows = read_rows(folder)
    comparable = options.baseline in {row.arm for row in rows}
    comparison = _write_outputs(folder, summarise(rows, options.baseline, options.level)) if comparable else None
    if failed:
        if comparison is not None:
            print(comparison, flush=True)
        reasons = "; ".join(f"{job}: {reason}" for job, reason in failed.items())
        raise DS2D2Error(f"{len(failed)} failed, the same command tries again ({reasons})")
    assert comparison is not None  # the baseline is among the arms
    return comparison


def _write_outputs(folder: Path, summary: Summary) -> Comparison:
    """Write tables and plot."""
    text = report(summary)
    write_atomically(folder / REPORT_FILE, text + f"\n![differences]({PLOT_FILE})\n")
    summary.write(folder / SUMMARY_FILE)
    draw(summary, folder / PLOT_FILE)
    return Comparison(folder, summary, text)
