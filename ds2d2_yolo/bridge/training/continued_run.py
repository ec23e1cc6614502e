"""The unfinished run that a command continues: one that `resume` means, or that of an earlier attempt of a launch."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ultralytics.utils import LOGGER, RANK

from ds2d2_yolo.bridge.training.find_run import Unfinished, find_last_of_launch, find_unfinished
from ds2d2_yolo.bridge.training.machines.launch import launch_name, restarted
from ds2d2_yolo.bridge.training.machines.store import CONTINUED, SEEN, MachineStore, machine_store, several_machines


@contextmanager
def continued_run(resume: Any, overrides: Mapping[str, Any], tasks: tuple[str, ...]) -> Iterator[Unfinished | None]:
    """Find the run that this command continues. On several machines rank 0 decides, and the others get its last.pt.

    Args:
        resume (Any): The setting `resume`.
        overrides (Mapping[str, Any]): Ultralytics settings of the command.
        tasks (tuple[str, ...]): The tasks whose runs are meant.

    Yields:
        (Unfinished | None): The run, None for a new one. Its file may last only as long as the context.

    Raises:
        BadUseError: If `resume` means no run that can go on, or if the run of this launch is finished.
    """
    if not several_machines():
        yield _find(resume, overrides, tasks)
        return
    store = machine_store()
    run = _find(resume, overrides, tasks) if store.rank == 0 else None
    answer = run and {"last": str(run.last), "task": run.task, "hash": _hash(run.last)}
    answer = store.from_rank0(CONTINUED, answer)
    if answer is None:
        yield None
        return
    run = Unfinished(Path(answer["last"]), answer["task"])
    with tempfile.TemporaryDirectory(prefix="ds2d2-rank-") as folder:
        yield replace(run, last=shared_file(store, run.last, answer["hash"], Path(folder)))


def shared_file(store: MachineStore, file: Path, content: str, folder: Path) -> Path:
    """Return a file of rank 0 in every process; one that does not see it gets a copy.

    Args:
        store (MachineStore): The store of the launch.
        file (Path): Path in rank 0.
        content (str): SHA-256 of the content there.
        folder (Path): Folder for a copy.

    Returns:
        (Path): The file, or its copy in the subfolder of the same name.
    """
    seen = file.is_file() and _hash(file) == content
    if all(store.gather(SEEN, seen)):
        return file
    if store.rank == 0:
        store.send_file(f"{CONTINUED}/file", file)
    elif not seen:
        copy = folder / file.parent.name / file.name
        copy.parent.mkdir()
        store.receive_file(f"{CONTINUED}/file", copy)
        return copy
    return file


def _find(resume: Any, overrides: Mapping[str, Any], tasks: tuple[str, ...]) -> Unfinished | None:
    """Return the run that this process finds on its disk."""
    launch = launch_name() if not resume and (restarted() or several_machines()) else None
    if launch and (last := find_last_of_launch(launch, overrides, tasks)):
        if RANK == 0:
            LOGGER.info(f"DS2D2: torchrun has restarted the run, it goes on from {last}")
        resume = str(last)
    return find_unfinished(resume, overrides, tasks) if resume else None


def _hash(file: Path) -> str:
    """Return the SHA-256 of a file."""
    with file.open("rb") as f:
        digest = hashlib.sha256()
        while piece := f.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
