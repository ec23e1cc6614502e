"""Training of the high-frequency amplifier with Ultralytics' own trainer: trunk frozen, head on hf(T), usual loss."""

from __future__ import annotations

import copy
import logging
import os
import shutil
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from ultralytics.models.yolo.obb import OBBTrainer
from ultralytics.nn.tasks import load_checkpoint, torch_safe_load
from ultralytics.utils import DEFAULT_CFG_KEYS, LOGGER, __version__

from ds2d2_yolo.bridge.amplifier import (
    AmplifierCard,
    HighFrequencyInput,
    kept_amplifiers,
    one_to_many,
    save_amplifier,
)
from ds2d2_yolo.bridge.checkpoints import WholeCheckpoints
from ds2d2_yolo.bridge.data import data_hash
from ds2d2_yolo.bridge.heads import dense_head
from ds2d2_yolo.bridge.teacher import Teacher

# What belongs to the student's run and not to its amplifier's.
NOT_PASSED = {
    "compile", "epochs", "exist_ok", "freeze", "mode", "model", "name", "patience", "plots", "pretrained",
    "project", "resume", "save", "save_dir", "save_period", "task", "time", "val",
}  # fmt: skip


class _NoFreezingLines(logging.Filter):
    """Drop the line that Ultralytics logs for each frozen parameter: here that is the whole trunk."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is to be shown."""
        return not record.getMessage().startswith("Freezing layer")


class AmplifierTrainer(WholeCheckpoints):
    """Fine-tunes a copy of a teacher's one-to-many head on the high-frequency part of the teacher's neck features.

    The trunk is frozen, the statistics of its BatchNorm layers included; those of the head adapt to the new inputs.
    Loss, data pipeline, EMA, validation, early stopping and resuming are Ultralytics' own.

    Args:
        teacher (Teacher): Unfused; a copy of its model is trained.
        wavelet (str): Wavelet of the features.
        overrides (dict[str, Any]): Ultralytics training settings.
    """

    def __init__(self, teacher: Teacher, wavelet: str, overrides: dict[str, Any]) -> None:
        super().__init__(overrides=overrides)
        self.start = copy.deepcopy(teacher.model).requires_grad_(True)  # Ultralytics freezes what `freeze` names
        head = one_to_many(dense_head(self.start, "teacher"))
        head.register_forward_pre_hook(HighFrequencyInput(wavelet))

    def setup_model(self) -> dict[str, Any] | None:
        """Take the prepared teacher, or on resume the model of the checkpoint (its hook travels with it)."""
        if self.resume:
            model, checkpoint = load_checkpoint(self.args.resume)
            self.model = model.requires_grad_(True)
            return dict(checkpoint)
        self.model = self.start
        return None

    def _setup_train(self) -> None:
        """Set up as usual, without a line for each frozen parameter."""
        quiet = _NoFreezingLines()
        LOGGER.addFilter(quiet)
        try:
            super()._setup_train()
        finally:
            LOGGER.removeFilter(quiet)


class AmplifierOBBTrainer(AmplifierTrainer, OBBTrainer):
    """The same for oriented boxes."""


def card_for(
    teacher: Teacher, data: Mapping[str, Any], args: Namespace, wavelet: str, epochs: int | None
) -> AmplifierCard:
    """Return the origin of the amplifier that a student's run needs.

    Args:
        teacher (Teacher): The run's teacher.
        data (Mapping[str, Any]): The run's data set as `check_det_dataset` returns it.
        args (Namespace): The run's Ultralytics settings.
        wavelet (str): The run's wavelet.
        epochs (int | None): Epochs of the amplifier's training; None is a quarter of the student's, at least 1.

    Returns:
        (AmplifierCard): Without measured values.
    """
    return AmplifierCard(
        teacher=teacher.sha256,
        data=data_hash(data),
        wavelet=wavelet,
        classes=teacher.names,
        epochs=epochs or max(1, round(args.epochs / 4)),
        imgsz=int(args.imgsz if isinstance(args.imgsz, int) else max(args.imgsz)),
        fraction=float(args.fraction),
        ultralytics=__version__,
    )


def obtain_amplifier(card: AmplifierCard, teacher: Teacher, args: Namespace) -> Path:
    """Return the file of the kept amplifier of this origin, training it if there is none.

    A training that was cut off goes on where it stopped.

    Args:
        card (AmplifierCard): The origin.
        teacher (Teacher): The teacher, unfused.
        args (Namespace): The student's Ultralytics settings; data, image size, batch, optimizer and device are shared.

    Returns:
        (Path): The kept file.
    """
    file = kept_amplifiers() / f"{card.key}.safetensors"
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(file.with_suffix(".lock"))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        LOGGER.info("DS2D2: another process trains this amplifier, waiting for it")
        lock.acquire()
    try:
        if file.is_file():
            LOGGER.info(f"DS2D2: high-frequency amplifier found: {file}")
        else:
            _obtain(card, teacher, args, file)
    finally:
        lock.release()
    return file


def _obtain(card: AmplifierCard, teacher: Teacher, args: Namespace, file: Path) -> None:
    """Train the amplifier in a folder of its own, or go on with that, and keep the result as `file`."""
    run = kept_amplifiers() / card.key
    weights = run / "weights"
    if not _finished(weights / "last.pt", card.epochs):
        LOGGER.info(f"DS2D2: training the high-frequency amplifier, {card.epochs} epochs, kept for later runs")
        _train(card, teacher, args, run)
    best = weights / "best.pt" if (weights / "best.pt").is_file() else weights / "last.pt"
    model, checkpoint = load_checkpoint(best)
    metrics = checkpoint.get("train_metrics") or {}
    measured = {
        "map50": float(metrics.get("metrics/mAP50(B)", -1)),
        "map50_95": float(metrics.get("metrics/mAP50-95(B)", -1)),
    }
    save_amplifier(file, dense_head(model, "teacher").state_dict(), AmplifierCard(**{**vars(card), **measured}))
    if (run / "results.csv").is_file():
        os.replace(run / "results.csv", file.with_suffix(".csv"))
    shutil.rmtree(run, ignore_errors=True)
    LOGGER.info(f"DS2D2: high-frequency amplifier kept: {file} (its mAP50 {measured['map50']:.3f})")


def _finished(last: Path, epochs: int) -> bool:
    """Return whether a training has run its last epoch; its file may still await the final clean-up."""
    if not last.is_file():
        return False
    epoch = torch_safe_load(last)[0].get("epoch", -2)
    return bool(epoch == -1 or epoch + 1 >= epochs)


def _train(card: AmplifierCard, teacher: Teacher, args: Namespace, run: Path) -> None:
    """Run or resume the amplifier's training in its own folder."""
    shared = {k: v for k, v in vars(args).items() if k in DEFAULT_CFG_KEYS and k not in NOT_PASSED}
    shared["device"] = str(args.device or "").split(",")[0]  # the processes of DDP cannot be handed the teacher
    head = len(teacher.model.model) - 1
    overrides = {
        **shared,
        "model": teacher.path,
        "epochs": card.epochs,
        "patience": max(2, card.epochs // 2),
        "freeze": head,
        "plots": False,
        "save_dir": str(run),
        "exist_ok": True,
    }
    last = run / "weights" / "last.pt"
    if last.is_file():
        overrides["resume"] = str(last)
    kind = AmplifierOBBTrainer if teacher.rotated else AmplifierTrainer
    kind(teacher, card.wavelet, overrides).train()
