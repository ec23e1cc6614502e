"""Where the runs of a comparison run: the launcher, the devices, and the number of runs at a time."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from ds2d2_yolo.compare.launchers.local import LocalLauncher
from ds2d2_yolo.compare.launchers.slurm import SlurmLauncher, slurm_device, slurm_executor
from ds2d2_yolo.compare.options import read_slurm
from ds2d2_yolo.compare.plan import ComparePlan, run_slots
from ds2d2_yolo.compare.schedule import Command, Launcher
from ds2d2_yolo.utils.threads import thread_count, usable_cores


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
