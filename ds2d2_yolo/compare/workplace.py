"""Where the runs of a comparison run: the launcher, the devices, and the number of runs at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ds2d2_yolo.compare.launchers.local import LocalLauncher
from ds2d2_yolo.compare.launchers.slurm import SlurmLauncher, slurm_device, slurm_executor
from ds2d2_yolo.compare.options import read_slurm
from ds2d2_yolo.compare.plan import ComparePlan
from ds2d2_yolo.compare.schedule import Command, Launcher
from ds2d2_yolo.utils.threads import thread_count, usable_cores

MEMORY_SHARE = 0.8  # share of the free memory that the runs may use
STEP_FACTOR = 2.0  # the estimate of a step leaves out short-lived tensors
PROCESS_BYTES = 1e9  # of a process before it trains


@dataclass(frozen=True)
class Workplace:
    """Where the runs of a comparison run.

    Attributes:
        make_launcher (Callable[[Command], Launcher]): Returns the launcher of a command; that of Slurm reads the queue.
        devices (tuple[str, ...]): Devices that the runs are distributed over; one on a cluster.
        threads (int | None): CPU threads of a run, None on GPUs.
        on_cluster (bool): Whether a cluster runs them.
    """

    make_launcher: Callable[[Command], Launcher]
    devices: tuple[str, ...]
    threads: int | None
    on_cluster: bool = False

    @classmethod
    def of(cls, plan: ComparePlan) -> Workplace:
        """Return the workplace that a command asks for, before anything is loaded.

        Args:
            plan (ComparePlan): The comparison.

        Returns:
            (Workplace): The workplace.

        Raises:
            BadUseError: If there is no such device, or the cluster cannot be used.
        """
        from ds2d2_yolo.bridge.upstream.hardware import devices_of

        o, requested = plan.options, plan.keys.get("device")
        if o.launcher == "slurm":
            parameters = read_slurm(o.slurm)
            device = slurm_device(parameters, requested)
            threads = o.threads or (parameters.get("cpus_per_task", 1) if device == "cpu" else None)
            executor = slurm_executor(o.folder, parameters)
            variables = _thread_variables(threads)
            return cls(lambda command: SlurmLauncher(executor, command, variables), (device,), threads, True)
        devices = devices_of(requested)
        threads = o.threads or (_threads_per_run(o.parallel) if devices[0] == "cpu" else None)
        return cls(lambda command: LocalLauncher(command, _thread_variables(threads)), devices, threads)

    @property
    def check_device(self) -> str:
        """(str): Device of the arms' pre-flight checks: the machine that submits jobs may have no GPU."""
        return "cpu" if self.on_cluster else self.devices[0]

    def slots(self, plan: ComparePlan, step_bytes: int | None) -> list[str]:
        """Return the device of each run that may run at the same time: all runs on a cluster, which has its own queue.

        Args:
            plan (ComparePlan): The comparison.
            step_bytes (int | None): Estimated bytes of the largest training step.

        Returns:
            (list[str]): Devices in turn.
        """
        from ds2d2_yolo.bridge.upstream.hardware import free_memory

        if number := plan.options.parallel or (len(plan.runs) if self.on_cluster else None):
            return [self.devices[i % len(self.devices)] for i in range(number)]
        memory = {device: free_memory(device) for device in self.devices if device != "mps"}
        return run_slots(self.devices, usable_cores(), self.threads or 1, memory, step_bytes)


def _thread_variables(threads: int | None) -> dict[str, str]:
    """Return the environment variable for the CPU threads of a run."""
    return {"OMP_NUM_THREADS": str(threads)} if threads else {}


def _threads_per_run(parallel: int | None) -> int:
    """Return the CPU threads of a run without `threads=`: `OMP_NUM_THREADS`, or an equal share of the cores."""
    if os.environ.get("OMP_NUM_THREADS"):
        return thread_count()
    return max(1, usable_cores() // parallel) if parallel else 1


def run_slots(
    devices: Sequence[str], cores: int, threads: int, memory: Mapping[str, int], step_bytes: int | None
) -> list[str]:
    """Return the devices of the runs that run at the same time if the command does not set their number.

    A run gets twice the estimated memory of its training step and 1 GB; all runs together get 80 % of the free memory.
    On a CPU the cores limit the runs, `threads` each; on a GPU there is at most one run for every two cores. There is
    always one run, and without an estimate no more than that, except on a CPU. Several GPUs take one run each.

    Args:
        devices (Sequence[str]): 'cpu', 'mps', or numbers of GPUs.
        cores (int): CPU cores.
        threads (int): CPU threads of a run.
        memory (Mapping[str, int]): Free bytes of each device.
        step_bytes (int | None): Estimated bytes of the largest training step.

    Returns:
        (list[str]): A device for each run, in turn.

    Examples:
        >>> run_slots(["cpu"], 8, 2, {"cpu": 64 * 10**9}, 10**9)
        ['cpu', 'cpu', 'cpu', 'cpu']
    """
    device, on_cpu = devices[0], devices[0] == "cpu"
    if device == "mps" or len(devices) > 1 or (step_bytes is None and not on_cpu):
        return list(devices)
    limit = max(1, cores // threads if on_cpu else cores // 2)
    if step_bytes is None:
        return [device] * limit
    need = STEP_FACTOR * step_bytes + PROCESS_BYTES
    return [device] * min(limit, max(1, int(MEMORY_SHARE * memory[device] / need)))
