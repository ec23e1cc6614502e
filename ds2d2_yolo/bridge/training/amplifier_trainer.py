"""Training of the high-frequency amplifier with Ultralytics' own trainer: trunk frozen, head on hf(T), usual loss."""

from __future__ import annotations

import copy
import logging
import math
import os
import shutil
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from ultralytics.data.utils import get_split_fraction
from ultralytics.models.yolo.obb import OBBTrainer
from ultralytics.nn.tasks import load_checkpoint, torch_safe_load
from ultralytics.utils import DEFAULT_CFG_KEYS, LOGGER, RANK
from ultralytics.utils import __version__ as ultralytics_version
from ultralytics.utils.callbacks import get_default_callbacks

from ds2d2_yolo._version import __version__
from ds2d2_yolo.bridge.data.class_map import class_names, match_classes, match_run_classes
from ds2d2_yolo.bridge.data.dataset import data_hash, load_data, map_to_teacher_classes
from ds2d2_yolo.bridge.models.amplifier import HighFrequencyInput, one_to_many
from ds2d2_yolo.bridge.models.amplifier_store import AmplifierCard, save_amplifier, stored_card, stored_file
from ds2d2_yolo.bridge.models.heads import dense_head
from ds2d2_yolo.bridge.models.teacher import Teacher
from ds2d2_yolo.bridge.training.find_run import is_over
from ds2d2_yolo.bridge.training.hooks.atomic_checkpoints import WholeCheckpoints
from ds2d2_yolo.bridge.training.hooks.exact_resume import ExactResume
from ds2d2_yolo.bridge.training.hooks.finite_steps import FiniteSteps
from ds2d2_yolo.bridge.validation.teacher_map import teacher_map
from ds2d2_yolo.errors import BadUseError

# What belongs to the student's run and not to its amplifier's.
NOT_PASSED = {
    "compile", "distill_model", "epochs", "exist_ok", "freeze", "mode", "model", "name", "nms", "patience", "plots",
    "pretrained", "project", "quantize", "resume", "save", "save_dir", "save_period", "task", "time", "val",
}  # fmt: skip


class _NoFreezingLines(logging.Filter):
    """Drop the line that Ultralytics logs for each frozen parameter: here that is the whole trunk."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is to be shown."""
        return not record.getMessage().startswith("Freezing layer")


class AmplifierTrainer(ExactResume, FiniteSteps, WholeCheckpoints):
    """Fine-tunes a copy of a teacher's one-to-many head on the high-frequency part of the teacher's neck features.

    The trunk is frozen, the statistics of its BatchNorm layers included; those of the head adapt to the new inputs.
    Loss, data pipeline, EMA, validation and early stopping are Ultralytics' own. The head keeps the teacher's classes,
    and the labels are given their indices: boxes of other classes are left out. A training that was cut off ends with
    the weights of one that was not.

    Args:
        teacher (Teacher): Unfused; a copy of its model is trained.
        wavelet (str): Wavelet of the features.
        overrides (dict[str, Any]): Ultralytics training settings.
    """

    data: dict[str, Any]

    @property
    def _exact(self) -> bool:
        """(bool): Whether a side file is kept."""
        return RANK == -1

    def __init__(self, teacher: Teacher, wavelet: str, overrides: dict[str, Any]) -> None:
        self.teacher_names = teacher.names
        super().__init__(overrides=overrides)
        self.callbacks = get_default_callbacks()  # without those of experiment trackers, which its validator shares
        self.start = copy.deepcopy(teacher.model).requires_grad_(True)  # Ultralytics freezes what `freeze` names
        head = one_to_many(dense_head(self.start, "the teacher"))
        head.register_forward_pre_hook(HighFrequencyInput(wavelet))

    def run_callbacks(self, event: str) -> None:
        """Call nothing: experiment trackers would open a run for it, or take it for the student's."""

    def get_dataset(self) -> dict[str, Any]:
        """Return the data set under the teacher's classes, which loss, class weights and metrics then go by."""
        self.own_data: dict[str, Any] = super().get_dataset()
        self.class_map = match_classes(self.teacher_names, class_names(self.own_data["names"]))
        if self.class_map.identical:
            return self.own_data
        return {**self.own_data, "names": dict(enumerate(self.teacher_names)), "nc": len(self.teacher_names)}

    def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> Any:
        """Read and check the labels as the data's own, so that its label cache stays, then map them."""
        if self.class_map.identical:
            return super().build_dataset(img_path, mode, batch)
        shown, self.data = self.data, self.own_data
        try:
            dataset = super().build_dataset(img_path, mode, batch)
        finally:
            self.data = shown
        if not map_to_teacher_classes(dataset.labels, self.class_map) and mode == "train":
            raise BadUseError(f"no training label is of a class that the teacher has: {self.class_map.describe()}")
        return dataset

    def setup_model(self) -> dict[str, Any] | None:
        """Take the prepared teacher, or on resume the model of the checkpoint (its hook travels with it)."""
        checkpoint = None
        self.model = self.start
        if self.resume:
            model, checkpoint = load_checkpoint(self.args.resume)
            self.model = model.requires_grad_(True)
        # Ultralytics keeps those of the teacher's own training (cls_pw) on its model, and the loss would take them
        self.model.__dict__.pop("class_weights", None)
        return dict(checkpoint) if checkpoint else None

    def final_eval(self) -> None:
        """Leave the checkpoints as they are: the best one is read, measured beside the teacher and removed."""

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
    teacher: Teacher,
    data: Mapping[str, Any],
    args: Namespace,
    wavelet: str,
    epochs: int | None,
    channels: tuple[int, ...] | None = None,
) -> AmplifierCard:
    """Return the origin of the amplifier that a student's run needs.

    Args:
        teacher (Teacher): The run's teacher.
        data (Mapping[str, Any]): The run's data set as `check_det_dataset` returns it.
        args (Namespace): The run's Ultralytics settings.
        wavelet (str): The run's wavelet.
        epochs (int | None): Epochs of the amplifier's training; None is a quarter of the student's, at least 1.
        channels (tuple[int, ...] | None): The data's channels that the teacher takes, as `fit_channels` returns them;
            None is all as they are.

    Returns:
        (AmplifierCard): Without measured values.

    Raises:
        BadUseError: If teacher and data share no class.
    """
    size = args.imgsz if isinstance(args.imgsz, int) else max(args.imgsz)
    stride = max(int(max(teacher.strides)), 32)
    return AmplifierCard(
        teacher=teacher.sha256,
        data=data_hash(data),
        wavelet=wavelet,
        classes=teacher.names,
        shared=_shared_classes(teacher, data, args),
        channels=tuple(range(data["channels"])) if channels is None else channels,
        imgsz=math.ceil(size / stride) * stride,  # as Ultralytics rounds it for the teacher
        fraction=get_split_fraction(args.fraction, "train"),
        epochs=epochs or max(1, round(args.epochs / 4)),
        ultralytics=ultralytics_version,
        torch=str(torch.__version__),
        ds2d2=__version__,
    )


def _shared_classes(teacher: Teacher, data: Mapping[str, Any], args: Namespace) -> tuple[str, ...]:
    """Return the classes of a run's labels that the teacher has too, refusing a pair without any."""
    shared = match_run_classes(teacher.names, data, args).shared
    if not shared:
        found = match_classes(teacher.names, class_names(data["names"]))
        said = found.describe() + (f", and classes={args.classes} takes none of these" if found.pairs else "")
        what = "name the classes alike in the data YAML, or take a teacher of these classes"
        raise BadUseError(f"no amplifier can be trained, {said}: {what}")
    return shared


def obtain_amplifier(card: AmplifierCard, teacher: Teacher, args: Namespace) -> Path:
    """Return the file of the kept amplifier of this origin, training it if there is none.

    One that was kept after a training of fewer epochs is replaced by one of as many as are asked for. A training that
    was cut off goes on where it stopped.

    Args:
        card (AmplifierCard): The origin.
        teacher (Teacher): The teacher, unfused.
        args (Namespace): The student's Ultralytics settings; data, image size, batch, optimizer and device are shared.

    Returns:
        (Path): The kept file.
    """
    file = stored_file(card)
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(file.with_suffix(".lock"))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        LOGGER.info("DS2D2: another process trains this amplifier, waiting for it")
        lock.acquire()
    try:
        found = stored_card(card)
        if found is not None and found.epochs >= card.epochs:
            LOGGER.info(f"DS2D2: high-frequency amplifier found: {file} ({found.reached})")
        else:
            _obtain(card, teacher, args, file)
        kept = max(card.epochs, found.epochs if found else 0)
        for folder in file.parent.glob(f"{card.key}-*"):  # trainings of no more epochs that were cut off, or this one
            if int(folder.name.rpartition("-")[2]) <= kept:
                shutil.rmtree(folder, ignore_errors=True)
    finally:
        lock.release()
    return file


def _obtain(card: AmplifierCard, teacher: Teacher, args: Namespace, file: Path) -> None:
    """Train the amplifier in a folder of its own, or go on with that, and keep the result as `file`."""
    run = file.with_suffix("").with_name(f"{card.key}-{card.epochs}")
    weights = run / "weights"
    if not _finished(weights / "last.pt", card.epochs):
        LOGGER.info(f"DS2D2: training the high-frequency amplifier, {card.epochs} epochs, kept for later runs")
        _train(card, teacher, args, run)
    best = weights / "best.pt" if (weights / "best.pt").is_file() else weights / "last.pt"
    model = load_checkpoint(best)[0]
    data = load_data(args)
    class_map = match_classes(teacher.names, class_names(data["names"]))
    mine = teacher_map(replace(teacher, model=model), data, args, class_map)
    theirs = teacher_map(teacher, data, args, class_map)
    card = replace(card, map50=mine[0], map50_95=mine[1], teacher_map50=theirs[0], teacher_map50_95=theirs[1])
    save_amplifier(file, dense_head(model, "the amplifier").state_dict(), card)
    if (run / "results.csv").is_file():
        os.replace(run / "results.csv", file.with_suffix(".csv"))
    LOGGER.info(f"DS2D2: high-frequency amplifier kept: {file} ({card.reached})")


def _finished(last: Path, epochs: int) -> bool:
    """Return whether a training has run its last epoch, or stopped early."""
    if not last.is_file():
        return False
    checkpoint, _ = torch_safe_load(last)
    return checkpoint.get("epoch") == -1 or is_over(checkpoint, {**checkpoint["train_args"], "epochs": epochs})


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
