"""Jobs of Slurm with stand-ins for its programs: submission, the queue, ends and mistakes."""

from __future__ import annotations

import os
import pickle
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ds2d2_yolo.compare.launchers import slurm as slurm_launcher
from ds2d2_yolo.compare.launchers import slurm_job
from ds2d2_yolo.compare.launchers.child import RESULT_FILE
from ds2d2_yolo.compare.launchers.slurm import SlurmLauncher, slurm_device, slurm_executor, slurm_name
from ds2d2_yolo.compare.launchers.slurm_job import SlurmJob
from ds2d2_yolo.compare.schedule import Job
from ds2d2_yolo.errors import BadUseError, DS2D2Error
from ds2d2_yolo.utils.child_process import reported_error
from tests.helpers.slurm_programs import SlurmPrograms

pytest.importorskip("submitit")
pytestmark = pytest.mark.skipif(os.name != "posix", reason="the stand-ins are shell scripts")


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SlurmPrograms:
    """The programs, before all others of the machine."""
    programs = SlurmPrograms(tmp_path)
    monkeypatch.setenv("PATH", f"{programs.folder}:{os.environ['PATH']}")
    return programs


@pytest.fixture
def launcher_of(tmp_path: Path, slurm: SlurmPrograms) -> Callable[[], SlurmLauncher]:
    """Make a launcher that reads the queue as a new process would."""
    executor = slurm_executor(tmp_path / "runs", {"time": 60, "cpus_per_task": 3, "setup": "module load cuda"})
    return lambda: SlurmLauncher(executor, lambda job, device: [sys.executable, "-c", "pass", device], {"A": "1"})


def job_in(folder: Path) -> Job:
    """A job of an arm and a seed."""
    return Job("plain, seed 0", folder / "plain" / "seed0")


def finish(job: Job) -> None:
    """Write a result."""
    job.folder.mkdir(parents=True, exist_ok=True)
    (job.folder / RESULT_FILE).write_text("[]")


def test_a_queued_job_is_found_again_and_not_submitted_twice(
    launcher_of: Callable[[], SlurmLauncher], slurm: SlurmPrograms, tmp_path: Path
) -> None:
    slurm.switch("held")
    job = job_in(tmp_path)
    first = launcher_of()
    assert first.start(job, "0") == "submitted as Slurm job 1"
    assert first.ended() == []
    first.stop()
    assert first.unfinished() == "; its Slurm jobs go on, 'scancel 1' ends them"
    second = launcher_of()
    assert second.start(job, "0") == "is already Slurm job 1"
    assert slurm.submitted() == ["plain-seed0"]
    finish(job)
    assert second.ended() == [(job, "")]
    assert second.ended() == []
    assert second.unfinished() == ""


def test_jobs_of_two_comparisons_have_different_names(tmp_path: Path) -> None:
    assert slurm_name(job_in(tmp_path / "one")) != slurm_name(job_in(tmp_path / "two"))
    assert slurm_name(job_in(tmp_path / "one")) == slurm_name(job_in(tmp_path / "one"))


def test_a_job_that_leaves_the_queue_without_a_result_has_failed(
    launcher_of: Callable[[], SlurmLauncher], slurm: SlurmPrograms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm.switch("held")
    job, launcher = job_in(tmp_path), launcher_of()
    launcher.start(job, "cpu")
    slurm.switch("down")
    slurm.end_jobs()
    monkeypatch.setattr(slurm_launcher, "RESULT_WAIT_S", 0.0)
    assert launcher.ended() == [], "nobody knows while Slurm does not answer"
    slurm.switch("down", on=False)
    monkeypatch.setattr(slurm_launcher, "RESULT_WAIT_S", 60.0)
    assert launcher.ended() == [], "its result may appear later"
    monkeypatch.setattr(slurm_launcher, "RESULT_WAIT_S", 0.0)
    ((ended, reason),) = launcher.ended()
    assert ended == job
    assert reason == f"Slurm ended job 1 without a result, see {tmp_path}/runs/.slurm/1_0_log.err"


def test_the_error_of_the_process_is_the_reason(
    launcher_of: Callable[[], SlurmLauncher], slurm: SlurmPrograms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm.switch("held")
    job, launcher = job_in(tmp_path), launcher_of()
    launcher.start(job, "cpu")
    slurm.end_jobs()
    job.folder.mkdir(parents=True)
    job.log.write_text("epoch 1\nds2d2-yolo: no memory for batch=4\n")
    monkeypatch.setattr(slurm_launcher, "RESULT_WAIT_S", 0.0)
    assert launcher.ended() == [(job, "no memory for batch=4")]


def test_the_batch_script_has_the_parameters(
    launcher_of: Callable[[], SlurmLauncher], slurm: SlurmPrograms, tmp_path: Path
) -> None:
    slurm.switch("held")
    launcher_of().start(job_in(tmp_path), "cpu")
    text = (tmp_path / "runs" / ".slurm" / "1_submission.sh").read_text()
    for line in ("#SBATCH --time=60", "#SBATCH --cpus-per-task=3", "#SBATCH --requeue", "module load cuda"):
        assert line in text.splitlines()
    (step,) = (line for line in text.splitlines() if line.startswith("srun"))
    assert " --cpus-per-task=3 " in step


def test_a_refused_job_ends_in_one_line(
    launcher_of: Callable[[], SlurmLauncher], slurm: SlurmPrograms, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slurm.switch("refused")
    with pytest.raises(BadUseError, match=r"^sbatch refuses plain, seed 0: sbatch: error: .* Invalid account$"):
        launcher_of().start(job_in(tmp_path), "cpu")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"time": 5, "partion": "gpu"}, "slurm= has no 'partion': did you mean 'partition'"),
        ({"time": 5, "zzz": 1}, "slurm= has no 'zzz': it takes account, "),
        ({"time": 5, "ntasks_per_node": 2}, "slurm= has no 'ntasks_per_node'"),
    ],
)
def test_an_unknown_parameter_ends_in_one_line(
    parameters: dict[str, Any], message: str, tmp_path: Path, slurm: SlurmPrograms
) -> None:
    with pytest.raises(BadUseError, match=message) as e:
        slurm_executor(tmp_path / "runs", parameters)
    assert "\n" not in str(e.value)
    assert not (tmp_path / "runs").exists()


def test_what_is_missing_is_named(tmp_path: Path, slurm: SlurmPrograms, monkeypatch: pytest.MonkeyPatch) -> None:
    slurm.switch("down")
    with pytest.raises(BadUseError, match=r"^Slurm does not answer: slurm_load_jobs error: Unable to contact"):
        slurm_executor(tmp_path, {"time": 5})
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadUseError, match=r"^launcher=slurm needs sbatch, which is not found"):
        slurm_executor(tmp_path, {"time": 5})
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(BadUseError, match=r"needs submitit: pip install 'ds2d2-yolo\[cluster\]'"):
        slurm_executor(tmp_path, {"time": 5})


@pytest.mark.parametrize(
    ("parameters", "requested", "device"),
    [
        ({"partition": "gpu"}, None, "cpu"),
        ({"gpus_per_node": 1}, None, "0"),
        ({"gres": "gpu:a100:1"}, None, "0"),
        ({"gpus_per_node": 0}, None, "cpu"),
        ({"gpus_per_node": 1}, "cpu", "cpu"),
        ({}, 0, "0"),
    ],
)
def test_a_run_has_the_gpu_of_its_job(parameters: dict[str, Any], requested: Any, device: str) -> None:
    assert slurm_device(parameters, requested) == device


def test_several_devices_of_a_job_are_refused() -> None:
    with pytest.raises(BadUseError, match="device=0,1: with launcher=slurm each run has one device"):
        slurm_device({}, "0,1")


def test_a_slurm_job_runs_its_command_and_is_requeued_as_it_was(tmp_path: Path) -> None:
    code = "import os, sys; print('device', sys.argv[1], os.environ['A'])"
    job = SlurmJob([sys.executable, "-c", code, "0"], tmp_path / "log.txt", {"A": "1"})
    job()
    assert (tmp_path / "log.txt").read_text() == "device 0 1\n"
    assert requeued(job) == job


def requeued(job: SlurmJob) -> SlurmJob:
    """What the requeued job runs, pickled as submitit does it."""
    submission = job.checkpoint()
    assert submission is not None
    return pickle.loads(pickle.dumps(submission.function))


def test_a_slurm_job_that_saves_nothing_is_requeued_twice(tmp_path: Path) -> None:
    last = tmp_path / "last.pt"
    saving_command = [sys.executable, "-c", "import pathlib, sys; pathlib.Path(sys.argv[1]).touch()", str(last)]
    job = SlurmJob(saving_command, tmp_path / "log.txt", {}, last)
    for idle in (1, 2):
        job = requeued(job)
        assert job.idle_sessions == idle
    job()
    job = requeued(job)
    assert job.idle_sessions == 0
    job.command = [sys.executable, "-c", "pass"]
    for _ in range(2):
        job()
        job = requeued(job)
    job()
    assert job.checkpoint() is None
    assert reported_error((tmp_path / "log.txt").read_text()) == slurm_job.IDLE_ERROR


def test_the_child_ends_before_its_job_is_requeued(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    code = "import pathlib, sys, time; pathlib.Path(sys.argv[1]).touch(); time.sleep(60)"
    job = SlurmJob([sys.executable, "-c", code, str(ready)], tmp_path / "log.txt", {})

    def requeue(*_: Any) -> None:
        assert requeued(job) == job
        raise SystemExit  # as submitit does it

    previous_handler = signal.signal(signal.SIGALRM, requeue)
    try:
        signal.setitimer(signal.ITIMER_REAL, 1.0)
        with pytest.raises(SystemExit):
            job()
    finally:
        signal.signal(signal.SIGALRM, previous_handler)
    assert job.process is not None
    assert job.process.wait(10) == -signal.SIGKILL


@pytest.mark.parametrize(("code", "status"), [("raise SystemExit(3)", 3), ("import os; os.kill(os.getpid(), 9)", -9)])
def test_a_slurm_job_fails_with_its_child(
    code: str, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(slurm_job.time, "sleep", waited.append)
    with pytest.raises(DS2D2Error, match=f"status {status}, see "):
        SlurmJob([sys.executable, "-c", code], tmp_path / "log.txt", {})()
    assert waited == ([slurm_job.SIGNAL_WAIT_S] if status < 0 else [])
