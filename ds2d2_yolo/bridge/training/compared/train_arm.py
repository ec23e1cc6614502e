"""One arm of a comparison with one seed, trained to its end across interruptions."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ultralytics import YOLO
from ultralytics.cfg import get_cfg
from ultralytics.nn.tasks import torch_safe_load
from ultralytics.utils import DEFAULT_CFG_KEYS, LOGGER

from ds2d2_yolo.bridge.training.compared.arm_trainers import TRAINERS
from ds2d2_yolo.bridge.training.compared.notes import Notes
from ds2d2_yolo.bridge.training.find_run import is_over
from ds2d2_yolo.bridge.training.hooks.atomic_checkpoints import finalize_checkpoints
from ds2d2_yolo.bridge.training.plain_run import trained_epochs
from ds2d2_yolo.bridge.training.setup.unsupported import refuse_quantize

TRAIN_KEYS = tuple(sorted(DEFAULT_CFG_KEYS))


def train_arm(
    kind: str, folder: Path, student: str, keys: Mapping[str, Any], subjects: Mapping[str, str],
    settings: Mapping[str, Any], parallel: int,
) -> Notes:  # fmt: skip
    """Train one arm with one seed, go on with a training that was cut off, or do nothing where it is finished.

    Args:
        kind (str): 'plain', 'distill_model', 'pseudo_labels', 'ds2d2' or 'rival'.
        folder (Path): Folder of this run alone.
        student (str): Student, as Ultralytics resolves its name.
        keys (Mapping[str, Any]): Ultralytics training settings, seed and device included.
        subjects (Mapping[str, str]): Fields of `Subjects`.
        settings (Mapping[str, Any]): The arm's own settings.
        parallel (int): Runs that are allowed at the same time.

    Returns:
        (Notes): What was noted of the run.
    """
    last = folder / "weights" / "last.pt"
    notes = Notes.read(folder)
    trained = -1 if notes.trained else trained_epochs(last)
    args = get_cfg(overrides=dict(keys))
    refuse_quantize(args)  # its import of ModelOpt draws a random number, which must come before the seed
    epochs = args.epochs
    if trained is not None and (not 0 <= trained < epochs or _is_over(last)):  # cut off in the clean-up, or later
        finalize_checkpoints(last.parent)
        return notes
    if trained is None:
        shutil.rmtree(last.parent, ignore_errors=True)  # weights of an earlier attempt must not be taken for this one's
        notes = Notes()
    notes.sessions, notes.parallel = notes.sessions + 1, max(notes.parallel, parallel)
    notes.write(folder)
    teaching = {"plain": {}, "distill_model": {"distill_model": subjects["teacher"]}}
    # a key `unlabelled` of the data YAML holds only where the comparison asks for it
    taught = teaching.get(kind, {"teacher": subjects["teacher"], "unlabelled": False})
    arm_keys = {**taught, **({} if kind == "rival" else settings)}
    paths = {"data": subjects["data"], "save_dir": str(folder), "exist_ok": True}
    trainer: Any = TRAINERS[kind, subjects["task"]]
    if kind == "rival":
        trainer = partial(trainer, rival=settings)  # Ultralytics only calls it (8.4.190), in a single process
    if trained is None:
        YOLO(student).train(trainer=trainer, **{**keys, **arm_keys, **paths})
    else:
        LOGGER.info(f"going on after epoch {trained} of {epochs}")
        changeable = {k: v for k, v in keys.items() if k in {"device", "workers", "cache"}}
        YOLO(str(last)).train(trainer=trainer, **{**changeable, **arm_keys, **paths, "resume": str(last)})
    return Notes.read(folder)


def _is_over(last: Path) -> bool:
    """Return whether an unfinished last.pt is that of the run's last epoch, early stopping included."""
    checkpoint, _ = torch_safe_load(last)
    return is_over(checkpoint, checkpoint["train_args"])
