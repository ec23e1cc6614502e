"""Runs jobs as jobs of a Slurm cluster, which submitit submits; an interrupted comparison finds them again.

submitit 1.5.4 writes the batch scripts and requeues a job that reaches its time limit or is preempted. It asks `sacct`
for the states of jobs, which needs an accounting database, so `squeue` and the result files tell them here.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import time
from collections.abc import Mapping
from contextlib import redirect_stderr
from difflib import get_close_matches
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING, Any

from ds2d2_yolo.compare.launchers.child import RESULT_FILE
from ds2d2_yolo.compare.launchers.slurm_job import SlurmJob
from ds2d2_yolo.compare.schedule import Command, Job
from ds2d2_yolo.errors import BadUseError
from ds2d2_yolo.utils.child_process import reported_error

if TYPE_CHECKING:
    from submitit import SlurmExecutor

FOLDER = ".slurm"  # in the folder of the comparison; no arm can have this name
MAX_TIMEOUTS = 100  # how often a job that reaches its time limit is requeued
RESULT_WAIT_S = 30.0  # on a shared file system, the result of an ended job appears later
QUEUE_TIMEOUT_S = 60.0
GPU_KEYS = ("gpus_per_node", "gpus_per_task", "gres")
# parameters of submitit that the launcher sets, and those with which a job would run its command several times
REFUSED_KEYS = {
    "additional_parameters", "array_parallelism", "dependency", "job_name", "nodes", "ntasks_per_node", "num_gpus",
    "srun_args", "stderr_to_stdout", "teardown", "use_srun",
}  # fmt: skip


class SlurmLauncher:
    """Starts each job as a Slurm job; see `schedule.Launcher`.

    The name of a Slurm job holds a hash of the folder of its run. A job whose name is in the queue is not submitted
    again.

    Args:
        executor (SlurmExecutor): Submits jobs, see `slurm_executor`.
        command (Command): Returns the command line of a job on a device.
        environment (Mapping[str, str] | None): Variables that are set for the processes.

    Raises:
        BadUseError: If Slurm does not answer.
    """

    poll_interval_s = 10.0

    def __init__(
        self,
        executor: SlurmExecutor,
        command: Command,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._executor, self._command, self._environment = executor, command, dict(environment or {})
        self._queued = queued_jobs()
        self._running: dict[str, tuple[Job, str]] = {}  # name of the Slurm job -> job, number of the Slurm job
        self._missing: dict[str, float] = {}  # name -> when it was first missing in the queue

    def start(self, job: Job, device: str) -> str:
        """Submit a job, unless it is in the queue since an earlier session."""
        name = slurm_name(job)
        number = self._queued.get(name)
        is_queued = number is not None
        if number is None:
            number = self._submit(job, name, device)
        self._running[name] = job, number
        return f"{'is already' if is_queued else 'submitted as'} Slurm job {number}"

    def ended(self) -> list[tuple[Job, str]]:
        """Return the jobs that have a result or have left the queue without one."""
        try:
            queued = queued_jobs()
        except BadUseError:  # the controller may be down for a while
            queued = dict.fromkeys(self._running, "")
        now, ended = time.monotonic(), []
        for name, (job, number) in list(self._running.items()):
            if (job.folder / RESULT_FILE).is_file():
                ended.append((job, ""))
            elif name in queued:
                self._missing.pop(name, None)
                continue
            elif now - self._missing.setdefault(name, now) < RESULT_WAIT_S:
                continue
            else:
                ended.append((job, self._reason(job, number)))
            del self._running[name]
        return ended

    def stop(self) -> None:
        """Leave the Slurm jobs in the queue: the same command finds them again."""

    def unfinished(self) -> str:
        """Return how the Slurm jobs that go on can be ended."""
        numbers = " ".join(number for _, number in self._running.values())
        return f"; its Slurm jobs go on, 'scancel {numbers}' ends them" if numbers else ""

    def _submit(self, job: Job, name: str, device: str) -> str:
        """Submit a job and return the number of the Slurm job."""
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        # an amplifier is trained elsewhere, in a folder that several comparisons share
        checkpoint = None if job.task.get("kind") == "amplifier" else job.folder / "weights" / "last.pt"
        work = SlurmJob(self._command(job, device), job.log, self._environment, checkpoint)
        self._executor.update_parameters(job_name=name)
        try:
            with redirect_stderr(io.StringIO()):  # submitit prints the error too
                return str(self._executor.submit(work).job_id)
        except (FailedJobError, FailedSubmissionError) as e:
            raise BadUseError(f"sbatch refuses {job.name}: {_last_line(str(e))}") from e

    def _reason(self, job: Job, number: str) -> str:
        """Return why a job failed: the error that its process reported, or the file with Slurm's messages."""
        log = job.log.read_text(encoding="utf-8", errors="replace") if job.log.is_file() else ""
        file = self._executor.folder / f"{number}_0_log.err"
        return reported_error(log) or f"Slurm ended job {number} without a result, see {file}"


def slurm_executor(folder: Path, parameters: Mapping[str, Any]) -> SlurmExecutor:
    """Return submitit's executor for the jobs of a comparison.

    Args:
        folder (Path): Folder of the comparison, on a file system that all nodes share; nothing is written yet.
        parameters (Mapping[str, Any]): Parameters of `SlurmExecutor.update_parameters`; `time` is in minutes.

    Returns:
        (SlurmExecutor): The executor.

    Raises:
        BadUseError: If submitit or Slurm is missing, or a parameter is unknown or not allowed.
    """
    try:
        from submitit import SlurmExecutor
    except ModuleNotFoundError as e:
        raise BadUseError("launcher=slurm needs submitit: pip install 'ds2d2-yolo[cluster]'") from e
    known = SlurmExecutor._valid_parameters() - REFUSED_KEYS
    if unknown := [key for key in parameters if key not in known]:
        near = get_close_matches(unknown[0], sorted(known), n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"it takes {', '.join(sorted(known))}"
        raise BadUseError(f"slurm= has no '{unknown[0]}': {hint}")
    if missing := [program for program in ("sbatch", "srun", "squeue") if which(program) is None]:
        raise BadUseError(f"launcher=slurm needs {missing[0]}, which is not found: run it where jobs are submitted")
    queued_jobs()
    executor = SlurmExecutor(folder / FOLDER, max_num_timeout=MAX_TIMEOUTS)
    setup = parameters.get("setup")
    changed: dict[str, Any] = {"additional_parameters": {"requeue": True}}  # whatever the default of the cluster is
    if isinstance(setup, str):
        changed["setup"] = [setup]
    if cores := parameters.get("cpus_per_task"):
        changed["srun_args"] = [f"--cpus-per-task={cores}"]  # since Slurm 22.05, srun does not take it from sbatch
    executor.update_parameters(**{**parameters, **changed})
    return executor


def slurm_device(parameters: Mapping[str, Any], requested: Any) -> str:
    """Return the device of each run: the requested one, or the GPU if a job asks for one.

    Args:
        parameters (Mapping[str, Any]): Parameters of a Slurm job.
        requested (Any): `device=` of the command, None without one.

    Returns:
        (str): 'cpu' or '0'.

    Raises:
        BadUseError: If another device is requested.
    """
    if requested is None:
        return "0" if any(parameters.get(key) for key in GPU_KEYS) else "cpu"
    if str(requested) not in ("cpu", "0"):
        raise BadUseError(
            f"device={requested}: with launcher=slurm each run has one device, device=0 (the GPU of its job) or cpu"
        )
    return str(requested)


def slurm_name(job: Job) -> str:
    """Return the name of a job in Slurm's queue; a job of another folder has another name.

    Args:
        job (Job): The job.

    Returns:
        (str): Such as 'plain-seed0-1f2e3d4c'.
    """
    digest = hashlib.sha256(str(job.folder).encode()).hexdigest()[:8]
    return f"{job.folder.parent.name}-{job.folder.name}-{digest}"


def queued_jobs() -> dict[str, str]:
    """Return the jobs of this user that wait, run or end: name -> number.

    Returns:
        (dict[str, str]): A requeued job stays among them.

    Raises:
        BadUseError: If Slurm does not answer.
    """
    try:
        process = subprocess.run(
            ["squeue", "--me", "--noheader", "--format=%A %j"], capture_output=True, text=True,
            timeout=QUEUE_TIMEOUT_S, check=True,
        )  # fmt: skip
    except subprocess.CalledProcessError as e:
        raise BadUseError(f"Slurm does not answer: {_last_line(e.stderr)}") from e
    except (OSError, subprocess.TimeoutExpired) as e:
        raise BadUseError(f"Slurm does not answer: {e}") from e
    pairs = (line.split(maxsplit=1) for line in process.stdout.splitlines())
    return {pair[1].strip(): pair[0] for pair in pairs if len(pair) == 2}


def _last_line(text: str) -> str:
    """Return the last line of an error."""
    return (text.strip().splitlines() or ["no message"])[-1].strip()
