"""The amplifier that a run needs: looked up in the store, or trained, resumed and stored."""

from __future__ import annotations

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
from ultralytics.nn.tasks import load_checkpoint, torch_safe_load
from ultralytics.utils import DEFAULT_CFG_KEYS, LOGGER
from ultralytics.utils import __version__ as ultralytics_version

from ds2d2_yolo._version import __version__
from ds2d2_yolo.bridge.data.class_map import class_names, match_classes, match_run_classes
from ds2d2_yolo.bridge.data.dataset import data_hash, load_data
from ds2d2_yolo.bridge.models.amplifier_store import AmplifierCard, save_amplifier, stored_card, stored_file
from ds2d2_yolo.bridge.models.heads import dense_head
from ds2d2_yolo.bridge.models.teacher import Teacher
from ds2d2_yolo.bridge.training.amplifier_trainer import AmplifierOBBTrainer, AmplifierTrainer
from ds2d2_yolo.bridge.training.find_run import is_over
from ds2d2_yolo.bridge.validation.teacher_map import teacher_map
from ds2d2_yolo.errors import BadUseError

# Settings of the student's run that do not apply to its amplifier's.
NOT_PASSED = {
    "compile", "distill_model", "epochs", "exist_ok", "freeze", "mode", "model", "name", "nms", "patience", "plots",
    "pretrained", "project", "quantize", "resume", "save", "save_dir", "save_period", "task", "time", "val",
}  # fmt: skip
# Part of the folder's name. The checkpoints of a training pickle classes by their modules' names: a new number for new
# names, or Ultralytics (8.4.190) would look for a package of the old name to install.
CHECKPOINTS = "c2"


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
    return AmplifierCard(
        teacher=teacher.sha256,
        data=data_hash(data),
        wavelet=wavelet,
        classes=teacher.names,
        shared=_shared_classes(teacher, data, args),
        channels=tuple(range(data["channels"])) if channels is None else channels,
        imgsz=rounded_imgsz(teacher, args),
        fraction=get_split_fraction(args.fraction, "train"),
        epochs=epochs or max(1, round(args.epochs / 4)),
        ultralytics=ultralytics_version,
        torch=str(torch.__version__),
        ds2d2=__version__,
    )


def rounded_imgsz(teacher: Teacher, args: Namespace) -> int:
    """Return the size of the images that a teacher sees, as Ultralytics rounds it in an amplifier's training.

    Args:
        teacher (Teacher): The run's teacher.
        args (Namespace): The run's Ultralytics settings, with the size of the teacher's images.

    Returns:
        (int): Pixels.
    """
    size = args.imgsz if isinstance(args.imgsz, int) else max(args.imgsz)
    stride = max(int(max(teacher.strides)), 32)
    return math.ceil(size / stride) * stride


def _shared_classes(teacher: Teacher, data: Mapping[str, Any], args: Namespace) -> tuple[str, ...]:
    """Return the classes of a run's labels that the teacher has too, refusing a pair without any."""
    shared = match_run_classes(teacher.names, data, args).shared
    if not shared:
        class_map = match_classes(teacher.names, class_names(data["names"]))
        taken = f", and classes={args.classes} takes none of these" if class_map.pairs else ""
        hint = "name the classes alike in the data YAML, or take a teacher of these classes"
        raise BadUseError(f"no amplifier can be trained, {class_map.describe()}{taken}: {hint}")
    return shared


def obtain_amplifier(card: AmplifierCard, teacher: Teacher, args: Namespace) -> Path:
    """Return the file of the stored amplifier of this origin, after training it if there is none.

    An amplifier with fewer epochs than requested is replaced. An interrupted training is resumed.

    Args:
        card (AmplifierCard): The origin.
        teacher (Teacher): The teacher, unfused.
        args (Namespace): The student's Ultralytics settings; data, image size, batch, optimizer and device are shared.

    Returns:
        (Path): The stored file.
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
        stored = stored_card(card)
        if stored is not None and stored.epochs >= card.epochs:
            LOGGER.info(f"DS2D2: high-frequency amplifier found: {file} ({stored.reached})")
        else:
            _obtain(card, teacher, args, file)
        epochs = max(card.epochs, stored.epochs if stored else 0)
        for folder in file.parent.glob(f"{card.key}-*"):  # trainings of no more epochs that were cut off, or this one
            if int(folder.name.rpartition("-")[2]) <= epochs:
                shutil.rmtree(folder, ignore_errors=True)
    finally:
        lock.release()
    return file


def _obtain(card: AmplifierCard, teacher: Teacher, args: Namespace, file: Path) -> None:
    """Train the amplifier in a separate folder, or resume that training, and store the result as `file`."""
    run = file.with_suffix("").with_name(f"{card.key}-{CHECKPOINTS}-{card.epochs}")
    weights = run / "weights"
    if not _finished(weights / "last.pt", card.epochs):
        LOGGER.info(f"DS2D2: training the high-frequency amplifier, {card.epochs} epochs, kept for later runs")
        _train(card, teacher, args, run)
    best = weights / "best.pt" if (weights / "best.pt").is_file() else weights / "last.pt"
    model = load_checkpoint(best)[0]
    data = load_data(args)
    class_map = match_classes(teacher.names, class_names(data["names"]))
    maps = teacher_map(replace(teacher, model=model), data, args, class_map)
    teacher_maps = teacher_map(teacher, data, args, class_map)
    card = replace(card, map50=maps[0], map50_95=maps[1])
    card = replace(card, teacher_map50=teacher_maps[0], teacher_map50_95=teacher_maps[1])
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
    """Run or resume the amplifier's training in its folder."""
    shared = {k: v for k, v in vars(args).items() if k in DEFAULT_CFG_KEYS and k not in NOT_PASSED}
    shared["device"] = str(args.device or "").split(",")[0]  # the processes of DDP cannot be handed the teacher
    # Settings that count epochs keep their share of the run: unscaled, a short training would see no mosaic at all.
    scale = card.epochs / args.epochs
    shared |= {"close_mosaic": round(scale * args.close_mosaic), "warmup_epochs": scale * args.warmup_epochs}
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
