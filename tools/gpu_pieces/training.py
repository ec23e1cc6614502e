"""Real training steps of a distillation under one setting: finite terms, precision, step time, memory."""

from __future__ import annotations

import csv
import json
import math
import shutil
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from ultralytics.utils.torch_utils import unwrap_model

from ds2d2_yolo import distill
from ds2d2_yolo.config.resources import resolve_model
from ds2d2_yolo.demo.shipped_teacher import TEACHER
from ds2d2_yolo.scenes import NAMES, write_dataset
from gpu_pieces.runner import Save

IMAGES, WARMUP = 320, 4  # training images of a piece, and steps whose time does not count
WITHOUT_AMPLIFIER = ("exlo", "exhi", "imfu")  # the terms that need nothing trained beforehand
MIB = 2**20


def training_keys(options: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the settings of a distillation in the piece's folder.

    Args:
        options (Mapping[str, Any]): Options of the tool.
        name (str): Name of the run.

    Returns:
        (dict[str, Any]): Keywords of `distill`. The high-frequency amplifier is off, since it is trained beforehand.
    """
    small = options["small"]
    student = options["student"] or ("yolov8-pico-obb.yaml" if small else "yolov8n-obb.yaml")
    return {
        "teacher": resolve_model(options["teacher"] or TEACHER),
        "student": resolve_model(student),
        "data": _data(options),
        "imgsz": 64 if small else options["imgsz"],
        "batch": 2 if small else options["batch"],
        "workers": 0 if small else 8,
        "device": options["device"],
        "project": options["folder"],
        "name": name,
        "exist_ok": True,
        "plots": False,
        "imhi": 0.0,
        "optimizer": "AdamW",
        "lr0": 0.001,
        "warmup_epochs": 0,
    }


def _data(options: Mapping[str, Any]) -> str:
    """Return the data YAML; for the small form, eight scenes are drawn once beside the pieces' folders."""
    if options["data"] or not options["small"]:
        return str(options["data"] or "aerial-scenes-small.yaml")
    root = Path(options["folder"]).parent / "scenes"
    if not root.exists():
        write_dataset(root, train=6, val=2, imgsz=320, workers=1)
    content = {"path": str(root), "train": "images/train", "val": "images/val", "names": dict(enumerate(NAMES))}
    file = root.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return str(file)


class Recorder:
    """Callbacks of a training that record step times, precision, batch size and memory.

    Attributes:
        milliseconds (list[float]): Time between the ends of consecutive batches.
        figures (dict[str, Any]): What else is known.
    """

    def __init__(self, save: Save) -> None:
        self.milliseconds: list[float] = []
        self.figures: dict[str, Any] = {}
        self._save = save
        self._last = 0.0

    def callbacks(self) -> dict[str, Callable[[Any], None]]:
        """Return Ultralytics' callbacks by event."""
        return {
            "on_train_start": self._started,
            "on_train_batch_end": self._batch_ended,
            "on_train_epoch_end": self._epoch_ended,
        }

    def _started(self, trainer: Any) -> None:
        """Note the run's settings, and listen to the precision of the teacher."""

        def listen(_: Any, __: Any, output: torch.Tensor) -> None:
            self.figures["dtype"] = str(output.dtype).removeprefix("torch.")

        trainer.distiller.teacher.model.model[0].register_forward_hook(listen)
        weight = next(p for p in unwrap_model(trainer.model).parameters() if p.ndim == 4 and p.shape[1] > 1)
        layout = weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()
        compiled = unwrap_model(trainer.model) is not trainer.model
        self.figures |= {"batch": trainer.batch_size, "channels_last": layout, "compiled": compiled}
        self._save(self.figures)
        if trainer.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(trainer.device)
        self._last = time.perf_counter()

    def _batch_ended(self, trainer: Any) -> None:
        """Note the time since the last batch."""
        if trainer.device.type == "cuda":
            torch.cuda.synchronize(trainer.device)
        now = time.perf_counter()
        self.milliseconds.append(1e3 * (now - self._last))
        self._last = now

    def _epoch_ended(self, trainer: Any) -> None:
        """Note the peak memory of the training steps, before the validation."""
        if trainer.device.type == "cuda":
            total = torch.cuda.get_device_properties(trainer.device).total_memory
            reserved = torch.cuda.max_memory_reserved(trainer.device)
            self.figures |= {
                "peak MiB": torch.cuda.max_memory_allocated(trainer.device) / MIB,
                "reserved MiB": reserved / MIB,
                "reserved share": reserved / total,
            }
        self._save(self.figures)

    def times(self) -> dict[str, Any]:
        """Return the first step's time, and the median of those after the warm-up."""
        late = self.milliseconds[WARMUP:] or self.milliseconds
        return {
            "steps": len(self.milliseconds),
            "first step ms": self.milliseconds[0],
            "median step ms": statistics.median(late),
        }


def train_steps(options: Mapping[str, Any], save: Save) -> dict[str, Any]:
    """Train one epoch on a part of the images under a piece's settings, and check precision and terms.

    Args:
        options (Mapping[str, Any]): Options of the tool with 'settings' (Ultralytics'), 'dtype' (expected of the
            teacher's features) and 'all_images' (whether the epoch has all images, else at most `IMAGES`).
        save (Save): Stores what is measured so far.

    Returns:
        (dict[str, Any]): Step times, memory, the estimate of the report before the run, terms.

    Raises:
        ValueError: If a term is not finite, or the features have another precision.
    """
    name, recorder = "train", Recorder(save)
    shutil.rmtree(Path(options["folder"]) / name, ignore_errors=True)
    keys = {**training_keys(options, name), "epochs": 1, **options["settings"]}
    if not options.get("all_images"):
        keys["fraction"] = 4 if options["small"] else IMAGES
    distill(**keys, callbacks=recorder.callbacks())
    folder = Path(options["folder"]) / name
    figures = {**recorder.figures, **recorder.times(), **estimate_figures(folder, recorder.figures)}
    save(figures)
    terms = finite_terms(folder)
    if figures["dtype"] != options["dtype"]:
        raise ValueError(f"the teacher's features are {figures['dtype']}, not {options['dtype']}")
    for setting, figure in (("channels_last", "channels_last"), ("compile", "compiled")):
        if options["settings"].get(setting) and not figures[figure]:
            raise ValueError(f"{setting} was not in force")
    return {**figures, **terms}


def estimate_figures(folder: Path, measured: Mapping[str, Any]) -> dict[str, float]:
    """Return the memory that the report before the run expects, and the measured peak over it.

    Args:
        folder (Path): Folder of the run.
        measured (Mapping[str, Any]): 'batch', and 'peak MiB' if it was measured.

    Returns:
        (dict[str, float]): 'estimate MiB', and 'peak / estimate' if there is a peak.
    """
    memory = json.loads((folder / "preflight.json").read_text(encoding="utf-8"))["memory"]
    fixed = memory["total"] or _fixed(memory)
    images = 0 if memory["total"] else measured["batch"]  # AutoBatch: the report does not know the batch
    estimate = (fixed + images * memory["per_image"]) / MIB
    peak = measured.get("peak MiB")
    return {"estimate MiB": estimate, **({} if peak is None else {"peak / estimate": peak / estimate})}


def _fixed(memory: Mapping[str, Any]) -> int:
    """Return the expected memory that does not depend on the number of images."""
    return sum(memory[part] for part in ("weights", "gradients", "optimizer", "ema", "teacher", "amplifier", "copies"))


def finite_terms(folder: Path, terms: Sequence[str] = WITHOUT_AMPLIFIER) -> dict[str, float]:
    """Return the terms of the last epoch.

    Args:
        folder (Path): Folder of the run.
        terms (Sequence[str]): Terms that the run has.

    Returns:
        (dict[str, float]): Column to value.

    Raises:
        ValueError: If a term of any epoch is not finite and positive, or if batches or images were left out.
    """
    with (folder / "results.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    columns = [f"train/{term}_loss" for term in terms]
    for row in rows:
        for column in columns:
            if not 0 < float(row[column]) < math.inf:
                raise ValueError(f"{column} is {row[column]} in epoch {row['epoch']}")
        if float(row["left_out/batches"]) or float(row["left_out/images"]):
            raise ValueError(f"non-finite batches or images were left out in epoch {row['epoch']}")
    return {column: float(rows[-1][column]) for column in columns}
