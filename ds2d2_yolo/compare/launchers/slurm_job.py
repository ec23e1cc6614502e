"""The process of a Slurm job, which submitit starts: it runs a child process and has Slurm requeue the job in time."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ds2d2_yolo.compare.launchers.local import kill_process, start_process
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.utils.child_process import ERROR_PREFIX

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

SIGNAL_WAIT_S = 30.0  # Slurm's default between SIGTERM and SIGKILL
MAX_IDLE_SESSIONS = 3
IDLE_ERROR = f"its Slurm job ended {MAX_IDLE_SESSIONS} times before an epoch was saved: give slurm= more time="


@dataclass
class SlurmJob:
    """Runs the child process of a job inside a Slurm job. submitit pickles it, and unpickles it in the Slurm job.

    The child continues after its last saved epoch, so a requeued Slurm job runs the same command again.

    Attributes:
        command (list[str]): Command line of the child process.
        log (Path): File that its output is appended to.
        environment (Mapping[str, str]): Variables that are set for it.
        checkpoint_file (Path | None): File that the child replaces after every epoch, None if there is none.
        idle_sessions (int): Sessions in a row that ended before the file was replaced.
        process (subprocess.Popen[bytes] | None): The child process of this session.
        saved_at (float): Time of the file when this session began, 0 without a file.
    """

    command: list[str]
    log: Path
    environment: Mapping[str, str]
    checkpoint_file: Path | None = None
    idle_sessions: int = 0
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False, compare=False)
    saved_at: float = field(default=0.0, compare=False)

    def __call__(self) -> None:
        """Run the child process to its end.

        Raises:
            DS2D2Error: If it fails; its log holds the reason.
        """
        self.saved_at = self._last_save()
        self.process = process = start_process(self.command, self.log, self.environment)
        try:
            status = process.wait()
            if status < 0:  # Slurm signals all processes of a job: this one may be about to handle the same signal
                time.sleep(SIGNAL_WAIT_S)
        finally:
            kill_process(process)
        if status:
            raise DS2D2Error(f"the child process ended with status {status}, see {self.log}")

    def checkpoint(self) -> DelayedSubmission | None:
        """Return what the requeued job runs: the same. submitit calls it before a time limit and on preemption.

        Returns:
            (DelayedSubmission | None): None ends the job: after `MAX_IDLE_SESSIONS` it would never get any further.
        """
        from submitit.helpers import DelayedSubmission

        if self.process is not None:
            kill_process(self.process)
        idle = self.checkpoint_file is not None and self._last_save() == self.saved_at
        sessions = self.idle_sessions + 1 if idle else 0
        if sessions < MAX_IDLE_SESSIONS:
            return DelayedSubmission(replace(self, idle_sessions=sessions, process=None))
        with self.log.open("a", encoding="utf-8") as log:
            print(f"{ERROR_PREFIX}{IDLE_ERROR}", file=log)
        return None

    def _last_save(self) -> float:
        """Return the time of the checkpoint file, 0 without one."""
        file = self.checkpoint_file
        return file.stat().st_mtime if file is not None and file.is_file() else 0.0
