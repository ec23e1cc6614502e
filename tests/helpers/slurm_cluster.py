"""A Slurm cluster of one node on the loopback address: daemons of the machine's packages in a temporary folder."""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel", "sinfo")
SEARCHED = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"  # the daemons are there in Debian
CONFIGURATION = """
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
SlurmctldPort={controller_port}
SlurmdPort={node_port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
MpiDefault=none
KillWait=10
SchedulerParameters=sched_interval=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing_programs() -> list[str]:
    """Return the programs of Slurm and munge that this machine lacks."""
    return [program for program in PROGRAMS if shutil.which(program, path=SEARCHED) is None]


@contextmanager
def one_node_slurm() -> Iterator[dict[str, str]]:
    """Run a cluster while the context lasts, and yield the environment of its commands."""
    # not in the folder of pytest: the path of a socket has at most 107 characters
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True)))
        (folder / "state").mkdir()
        (folder / "spool").mkdir()
        (folder / "munge.key").touch(0o600)
        (folder / "munge.key").write_bytes(secrets.token_bytes(1024))
        configuration = folder / "slurm.conf"
        controller_port, node_port = _free_ports(2)
        configuration.write_text(
            CONFIGURATION.format(
                host=socket.gethostname().partition(".")[0], user=getpass.getuser(), folder=folder,
                controller_port=controller_port, node_port=node_port,
            )
        )  # fmt: skip
        environment = {**os.environ, "PATH": SEARCHED, "SLURM_CONF": str(configuration)}
        files = (f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed"))
        socket_file = folder / "munge.socket"
        stack.enter_context(_daemon(folder, environment, "munged", "-F", "--force", f"--socket={socket_file}", *files))
        wait_for(socket_file.exists, "munged")
        stack.enter_context(_daemon(folder, environment, "slurmctld", "-D"))
        stack.enter_context(_daemon(folder, environment, "slurmd", "-D"))
        wait_for(lambda: "idle" in _output(environment, "sinfo", "--noheader", "--format=%t"), "slurmd", 60)
        stack.callback(_end_jobs, environment)
        yield environment


def queue(environment: dict[str, str]) -> dict[str, str]:
    """Return number -> state of the jobs in the queue."""
    output = _output(environment, "squeue", "--noheader", "--format=%A %T")
    return dict(line.split() for line in output.splitlines())


def wait_for(is_true: Callable[[], bool], event: str, seconds: float = 30) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline, f"{event} did not come within {seconds:g} s"
        time.sleep(0.2)


def _end_jobs(environment: dict[str, str]) -> None:
    """End all jobs, before slurmd ends: without it they would go on."""
    _output(environment, "scancel", "--user", getpass.getuser())
    wait_for(lambda: not queue(environment), "the end of all jobs", 60)


def _output(environment: dict[str, str], *command: str) -> str:
    """Return what a command prints."""
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout


@contextmanager
def _daemon(folder: Path, environment: dict[str, str], *command: str) -> Iterator[None]:
    """Run a program in the foreground while the context lasts."""
    with (folder / f"{command[0]}.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_ports(number: int) -> list[int]:
    """Return ports of the loopback address that nothing listens to."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(closing(socket.socket())) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
