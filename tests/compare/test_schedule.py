"""Jobs in processes of their own: order, needs, crashes, interruptions; with stand-ins for the processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ds2d2_yolo.compare.launchers.local import LocalLauncher
from ds2d2_yolo.compare.schedule import Job, run_jobs

REPOSITORY = Path(__file__).resolve().parents[2]


def jobs_in(folder: Path, *names: str, **needs: str) -> list[Job]:
    """Jobs of these names; keywords name what one needs."""
    return [Job(n, folder / n, needs=(needs[n],) if n in needs else ()) for n in names]


def run(jobs: list[Job], slots: list[str], programs: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    """Run Python programs as jobs, and return what was called back, and what failed."""
    events: list[str] = []

    def command(job: Job, device: str) -> list[str]:
        return [sys.executable, "-c", programs.get(job.name, "pass"), device]

    launcher = LocalLauncher(command)
    failed = run_jobs(
        jobs, slots, launcher, lambda j, _: events.append(f"+{j.name}"), lambda j: events.append(f"-{j.name}")
    )
    return events, failed


def test_one_slot_keeps_the_order(tmp_path: Path) -> None:
    events, failed = run(jobs_in(tmp_path, "a", "b", "c"), ["cpu"], {})
    assert events == ["+a", "-a", "+b", "-b", "+c", "-c"]
    assert not failed


def test_two_slots_run_at_the_same_time_on_their_devices(tmp_path: Path) -> None:
    # each waits for the other's sign, so one after the other would never end
    wait = (
        "import pathlib,sys,time;pathlib.Path({sign!r}).write_text(sys.argv[1]);"
        "u=time.time()+20\nwhile not pathlib.Path({other_sign!r}).exists():\n assert time.time()<u;time.sleep(.02)"
    )
    a, b = str(tmp_path / "sign-a"), str(tmp_path / "sign-b")
    programs = {"a": wait.format(sign=a, other_sign=b), "b": wait.format(sign=b, other_sign=a)}
    _, failed = run(jobs_in(tmp_path, "a", "b"), ["0", "1"], programs)
    assert not failed
    assert {Path(a).read_text(), Path(b).read_text()} == {"0", "1"}


def test_a_crash_ends_no_other_and_says_its_last_line(tmp_path: Path) -> None:
    programs = {
        "line": "print('first'); raise ValueError('no such band')",
        "killed": "import os,signal; os.kill(os.getpid(), signal.SIGKILL)",
        "silent": "import sys; sys.exit(3)",
    }
    events, failed = run(jobs_in(tmp_path, "line", "killed", "silent", "good"), ["cpu"], programs)
    assert "-good" in events
    assert failed == {"line": "ValueError: no such band", "killed": "killed by signal 9", "silent": "status 3"}
    assert "first" in (tmp_path / "line" / "log.txt").read_text()


def test_a_job_waits_for_what_it_needs_and_lets_others_go_first(tmp_path: Path) -> None:
    events, _ = run(jobs_in(tmp_path, "amplifier", "distilled", "plain", distilled="amplifier"), ["cpu", "cpu"], {
        "amplifier": "import time; time.sleep(1)",
    })  # fmt: skip
    assert events[:2] == ["+amplifier", "+plain"]
    assert events.index("-amplifier") < events.index("+distilled")


def test_a_job_whose_need_failed_is_not_run(tmp_path: Path) -> None:
    jobs = jobs_in(tmp_path, "amplifier", "distilled", "plain", distilled="amplifier")
    events, failed = run(jobs, ["cpu"], {"amplifier": "raise SystemExit('broken')"})
    assert failed == {"amplifier": "broken", "distilled": "it needs amplifier"}
    assert events == ["+amplifier", "+plain", "-plain"]


PARENT = """
import sys, pathlib
from ds2d2_yolo.compare.launchers.local import LocalLauncher
from ds2d2_yolo.compare.schedule import Job, run_jobs
folder = pathlib.Path(sys.argv[1])
child = '''
import pathlib, subprocess, sys, time
from ds2d2_yolo.compare.launchers.local import die_with_parent
die_with_parent()
other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
pathlib.Path(sys.argv[1]).write_text(str(other.pid))
time.sleep(60)
'''
command = lambda job, device: [sys.executable, "-c", child, str(folder / "pid")]
run_jobs([Job("a", folder / "a")], ["cpu"], LocalLauncher(command), lambda *_: None, lambda j: None)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
@pytest.mark.parametrize("stop_signal", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_process_outlives_its_parent(tmp_path: Path, stop_signal: signal.Signals) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], cwd=REPOSITORY, stderr=subprocess.DEVNULL)
    deadline = time.time() + 60
    while not ((tmp_path / "pid").is_file() and (tmp_path / "pid").read_text()):
        assert time.time() < deadline
        time.sleep(0.05)
    grandchild = int((tmp_path / "pid").read_text())
    parent.send_signal(stop_signal)
    assert parent.wait(30) != 0
    deadline = time.time() + 10
    while _alive(grandchild):
        assert time.time() < deadline, "a process of the run goes on alone"
        time.sleep(0.05)


def _alive(pid: int) -> bool:
    """Whether a process runs; one that waits to be collected does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not (status.is_file() and status.read_text().rsplit(")", 1)[1].split()[0] == "Z")
