"""Finding the unfinished run that `resume` means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any

from ultralytics.cfg import get_cfg, get_save_dir
from ultralytics.nn.tasks import torch_safe_load
from ultralytics.utils import RANK

from ds2d2_yolo.bridge.training.hooks.atomic_checkpoints import finalize_checkpoints, remove_leftovers
from ds2d2_yolo.bridge.training.machines.launch import is_marked
from ds2d2_yolo.bridge.upstream.arguments import ARGS_KEY
from ds2d2_yolo.errors import BadUseError


@dataclass(frozen=True)
class Unfinished:
    """A run that can go on.

    Attributes:
        last (Path): Its last.pt.
        task (str): Its task.
    """

    last: Path
    task: str


def find_unfinished(resume: Any, overrides: Mapping[str, Any], tasks: tuple[str, ...]) -> Unfinished:
    """Return the unfinished run that a command means.

    Args:
        resume (Any): Path of a last.pt or of a run's folder, or True: the newest unfinished run under the command's
            `project` and `name`.
        overrides (Mapping[str, Any]): Ultralytics settings of the command.
        tasks (tuple[str, ...]): The tasks whose runs are meant: the student's, or all if no student is named.

    Returns:
        (Unfinished): The run.

    Raises:
        BadUseError: If there is none, if it is finished, or if it never saved a checkpoint; says what to do.
    """
    named = resume is not True
    files = [_last_of(Path(str(resume)))] if named else _candidates(overrides, tasks)
    finished: Path | None = None
    for file in files:
        checkpoint = _read(file, named)
        if checkpoint is None:
            continue
        args = checkpoint.get("train_args") or {}
        if ARGS_KEY in args and is_over(checkpoint, args):  # cut off between the last epoch and the clean-up
            if RANK in {-1, 0}:  # one of the processes that torchrun starts, they would take each other's files
                finalize_checkpoints(file.parent)
            finished = finished or file
        elif checkpoint.get("epoch", -1) < 0:
            in_run_folder = file.name == "last.pt" and file.parent.name == "weights"
            if in_run_folder and RANK in {-1, 0}:
                remove_leftovers(file.parent)
            finished = finished or file
        elif ARGS_KEY in args:
            return Unfinished(file, str(args["task"]))
        elif named:
            raise BadUseError(f"{file} is a run of Ultralytics alone: resume it with 'yolo train resume model={file}'")
    if finished is not None:
        raise BadUseError(f"{finished} is finished, nothing to resume: train on with student={finished}")
    where = resume if named else " or ".join(str(_project(overrides, task)) for task in tasks)
    raise BadUseError(f"no saved epoch to resume in {where}: start the same command again without 'resume'")


def find_last_of_launch(launch: str, overrides: Mapping[str, Any], tasks: tuple[str, ...]) -> Path | None:
    """Return the last.pt of the run that an earlier attempt of a torchrun launch began, finished or not.

    Args:
        launch (str): Name of the launch, see `launch_name`.
        overrides (Mapping[str, Any]): Ultralytics settings of the command.
        tasks (tuple[str, ...]): The tasks whose runs are meant.

    Returns:
        (Path | None): The file, None if that attempt saved no epoch.
    """
    return next((file for file in _candidates(overrides, tasks) if is_marked(file.parent.parent, launch)), None)


def is_over(checkpoint: Mapping[str, Any], args: Mapping[str, Any]) -> bool:
    """Return whether a checkpoint is that of a run's last epoch, early stopping included.

    Args:
        checkpoint (Mapping[str, Any]): An unfinished last.pt, as Ultralytics writes it.
        args (Mapping[str, Any]): Its Ultralytics settings.

    Returns:
        (bool): Whether only the clean-up is still to come.
    """
    epochs = int(checkpoint.get("epoch", -1)) + 1
    if not epochs or epochs >= args.get("epochs", 1):
        return bool(epochs)
    best, patience = (checkpoint.get("stopper") or {}).get("best_epoch"), args.get("patience")
    measured = (checkpoint.get("train_metrics") or {}).get("fitness") is not None
    return bool(measured and best is not None and patience and epochs - best >= patience)


def _last_of(path: Path) -> Path:
    """Return the last.pt that a path means: the file itself, or the one in a run's folder."""
    return path / "weights" / "last.pt" if path.is_dir() else path


def _project(overrides: Mapping[str, Any], task: str) -> Path:
    """Return the run's folder as Ultralytics would name the first one."""
    plain = {k: overrides[k] for k in ("project", "name", "save_dir") if overrides.get(k)}
    return Path(get_save_dir(get_cfg(overrides={**plain, "task": task, "mode": "train", "exist_ok": True})))


def _candidates(overrides: Mapping[str, Any], tasks: tuple[str, ...]) -> list[Path]:
    """List the last.pt of every run of the command's name, numbered ones included, newest first."""
    files: set[Path] = set()
    for first in {_project(overrides, task) for task in tasks}:
        # Ultralytics numbers with a dash: 'exp10' is no copy of 'exp1'
        folders = [p for p in first.parent.glob(f"{escape(first.name)}-*") if p.name[len(first.name) + 1 :].isdigit()]
        files |= {f / "weights" / "last.pt" for f in (first, *folders)}
    return sorted((f for f in files if f.is_file()), key=lambda f: f.stat().st_mtime, reverse=True)


def _read(file: Path, named: bool) -> dict[str, Any] | None:
    """Return a checkpoint, None if there is none; a named one that cannot be read is an error."""
    if not file.is_file():
        return None
    try:
        checkpoint, _ = torch_safe_load(file)  # heeds ULTRALYTICS_SAFE_LOAD
        return dict(checkpoint)
    except Exception as e:  # unpickling an arbitrary file can raise anything
        if named:
            raise BadUseError(f"{file} cannot be read as a checkpoint: {str(e).splitlines()[0]}") from e
        return None
