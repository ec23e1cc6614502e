"""One arm of a comparison with one seed, trained to its end across interruptions, with notes on time and memory."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from ultralytics import YOLO
from ultralytics.cfg import get_cfg
from ultralytics.data import build_yolo_dataset
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.models.yolo.obb import OBBTrainer
from ultralytics.nn.tasks import torch_safe_load
from ultralytics.utils import DEFAULT_CFG_KEYS, LOGGER
from ultralytics.utils.torch_utils import unwrap_model

from ds2d2_yolo.bridge.data.class_map import match_run_classes
from ds2d2_yolo.bridge.data.dataset import data_hash, load_data
from ds2d2_yolo.bridge.data.label_checks import check_labels
from ds2d2_yolo.bridge.distillation.rivals.build import check_rival
from ds2d2_yolo.bridge.models.heads import dense_head, strides_of
from ds2d2_yolo.bridge.models.loading import check_freeze, check_pretrained, load_student
from ds2d2_yolo.bridge.models.teacher import load_teacher, state_hash
from ds2d2_yolo.bridge.preflight.prepared_run import USUAL_STRIDE
from ds2d2_yolo.bridge.training.find_run import is_over
from ds2d2_yolo.bridge.training.hooks.atomic_checkpoints import AtomicCheckpoints, finalize_checkpoints
from ds2d2_yolo.bridge.training.hooks.image_size import refuse_uneven
from ds2d2_yolo.bridge.training.plain_run import trained_epochs
from ds2d2_yolo.bridge.training.rival_trainer import RivalOBBTrainer, RivalTrainer
from ds2d2_yolo.bridge.training.trainer import DS2D2OBBTrainer, DS2D2Trainer
from ds2d2_yolo.bridge.upstream.hardware import peak_memory
from ds2d2_yolo.config.resources import resolve_data
from ds2d2_yolo.errors import BadUseError, DS2D2Error
from ds2d2_yolo.utils.atomic_files import write_json

NOTES = "watched.json"
TRAIN_KEYS = tuple(sorted(DEFAULT_CFG_KEYS))


@dataclass
class Notes:
    """Notes on a run while it trains, in a file of its folder that is replaced atomically after every epoch.

    Attributes:
        sessions (int): How often its training was started or resumed.
        parallel (int): Largest number of simultaneous runs that any session allowed.
        initial_weights (str): Hash of the student's weights before the first step.
        first_epoch (str): Hash of the first batch's pixels and of all boxes of the first epoch in their order.
        epochs (dict[str, list[float]]): For each epoch its seconds, without validation, and its steps.
        peak_memory_mb (float): Peak memory in MB (1e6 bytes): of tensors on a GPU, otherwise of the process.
        trained (bool): Whether the last epoch is over.
    """

    sessions: int = 0
    parallel: int = 0
    initial_weights: str = ""
    first_epoch: str = ""
    epochs: dict[str, list[float]] = field(default_factory=dict)
    peak_memory_mb: float = 0.0
    trained: bool = False

    @classmethod
    def read(cls, folder: Path) -> Notes:
        """Return the notes of a run's folder, empty ones if there are none.

        Args:
            folder (Path): The run's folder.

        Returns:
            (Notes): The notes.
        """
        file = folder / NOTES
        return cls(**json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else cls()

    def write(self, folder: Path) -> None:
        """Replace the notes of a run's folder.

        Args:
            folder (Path): The run's folder.
        """
        write_json(folder / NOTES, asdict(self))

    @property
    def train_seconds(self) -> float:
        """(float): Seconds of all epochs, without validation."""
        return sum(seconds for seconds, _ in self.epochs.values())

    @property
    def step_seconds(self) -> float:
        """(float): Seconds of a step in the median epoch."""
        each = sorted(seconds / steps for seconds, steps in self.epochs.values())
        return each[len(each) // 2] if each else 0.0


class WatchedTrainer(DetectionTrainer):
    """Notes time, memory and data of a run for a comparison, and finishes its files without a further validation.

    The training itself is unchanged. A batch that does not fit into memory ends the run: Ultralytics would go on with
    half of it, which is another schedule than that of the other arms.
    """

    def run_callbacks(self, event: str) -> None:
        """Note weights, time and memory at the events that Ultralytics announces."""
        if event == "on_train_start":
            self.notes = Notes.read(self.save_dir)
            self._order = hashlib.sha256()
            if self.start_epoch == 0:
                model = unwrap_model(self.model)  # Ultralytics' own distillation wraps the student
                self.notes.initial_weights = state_hash(getattr(model, "student_model", model).model)[:12]
        elif event == "on_train_epoch_start":
            self._began = time.perf_counter()
        elif event == "on_train_epoch_end":
            self._note_epoch()
        super().run_callbacks(event)

    def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Note which objects the first epoch shows, in their order and as they were augmented."""
        if self.epoch == 0:
            first = self._order.digest() == hashlib.sha256().digest()
            for key in ("img", "cls", "bboxes") if first else ("cls", "bboxes"):
                self._order.update(_bytes(batch[key]))
        return dict(super().preprocess_batch(batch))

    def final_eval(self) -> None:
        """Finish the files atomically; the comparison validates them itself."""
        self.notes.trained = True
        self.notes.write(self.save_dir)
        finalize_checkpoints(self.wdir)

    def _build_train_pipeline(self) -> None:
        """Build loaders and optimizer once; the second time is Ultralytics' answer to a lack of memory."""
        if self.optimizer is not None:
            raise DS2D2Error(f"no memory for batch={self.args.batch * 2}: lower batch= in a new folder, or parallel=")
        super()._build_train_pipeline()

    def _note_epoch(self) -> None:
        """Note the time and the memory of an epoch, and after the first one its data."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.notes.epochs[str(self.epoch)] = [time.perf_counter() - self._began, len(self.train_loader)]
        self.notes.peak_memory_mb = max(self.notes.peak_memory_mb, peak_memory(self.device))
        if self.epoch == 0:
            self.notes.first_epoch = self._order.hexdigest()[:12]
        self.notes.write(self.save_dir)


class PlainArm(WatchedTrainer):
    """Ultralytics' own training for upright boxes, with or without its `distill_model`, with atomic checkpoints."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.checkpoints = AtomicCheckpoints(self)
        super().__init__(*args, **kwargs)

    def save_metrics(self, metrics: dict[str, Any]) -> None:
        """Write the epoch's row atomically."""
        save = super().save_metrics
        self.checkpoints.save_metrics(lambda: save(metrics))

    def save_model(self) -> bool:
        """Save the checkpoints atomically."""
        return self.checkpoints.save(super().save_model)


class PlainOBBArm(PlainArm, OBBTrainer):
    """The same for oriented boxes."""


class DS2D2Arm(WatchedTrainer, DS2D2Trainer):
    """Training with DS2D2 for upright boxes."""


class DS2D2OBBArm(WatchedTrainer, DS2D2OBBTrainer):
    """The same for oriented boxes."""


class RivalArm(WatchedTrainer, RivalTrainer):
    """Training with a rival for upright boxes."""


class RivalOBBArm(WatchedTrainer, RivalOBBTrainer):
    """The same for oriented boxes."""


class PseudoLabelArm(DS2D2Arm):
    """Training of the plain student for upright boxes on labelled images and on others with the teacher's labels."""

    second_images_have_labels = True


class PseudoLabelOBBArm(DS2D2OBBArm):
    """The same for oriented boxes."""

    second_images_have_labels = True


TRAINERS = {
    ("plain", "detect"): PlainArm,
    ("plain", "obb"): PlainOBBArm,
    ("distill_model", "detect"): PlainArm,
    ("distill_model", "obb"): PlainOBBArm,
    ("pseudo_labels", "detect"): PseudoLabelArm,
    ("pseudo_labels", "obb"): PseudoLabelOBBArm,
    ("ds2d2", "detect"): DS2D2Arm,
    ("ds2d2", "obb"): DS2D2OBBArm,
    ("rival", "detect"): RivalArm,
    ("rival", "obb"): RivalOBBArm,
}


@dataclass(frozen=True)
class Subjects:
    """Teacher, student and data of a comparison, resolved and hashed.

    Attributes:
        task (str): 'detect' or 'obb'.
        teacher (str): Absolute path of the teacher.
        data (str): Path of the data YAML.
        teacher_hash (str): SHA-256 of its weights, as all below its first 12 digits.
        student_hash (str): Of the student's architecture, and of its weights where it comes with some.
        data_hash (str): Of the training split, see `data.data_hash`.
        val_hash (str): Of the split that is measured.
    """

    task: str
    teacher: str
    data: str
    teacher_hash: str
    student_hash: str
    data_hash: str
    val_hash: str


def identify(
    teacher: str, student: str, data: str, keys: Mapping[str, Any], upstream: bool, mixed: bool = True,
    rivals: Collection[str] = (),
) -> Subjects:  # fmt: skip
    """Load and check what a comparison is about, and read the labels so that its runs find their cache.

    Args:
        teacher (str): Teacher, as Ultralytics resolves its name.
        student (str): Student, likewise.
        data (str): Data YAML.
        keys (Mapping[str, Any]): Ultralytics' settings of all arms.
        upstream (bool): Whether Ultralytics' own distillation is among the arms: it pairs levels by their order.
        mixed (bool): Whether there are arms of DS2D2 or rivals and others: their image sizes have to be the same.
        rivals (Collection[str]): The rivals among the arms, keys of `config.rivals.RIVALS`.

    Returns:
        (Subjects): Resolved.

    Raises:
        BadUseError: If anything is missing, unreadable or does not fit the rest.
    """
    model = load_student(student)
    loaded = load_teacher(teacher, model.task)
    heads = [dense_head(m, "model") for m in (loaded.model, model.model)]
    levels = [len(strides_of(head)) for head in heads]
    if upstream and levels[0] != levels[1]:
        raise BadUseError(
            f"arm distill_model: Ultralytics wants as many levels in the teacher ({levels[0]}) as in the student "
            f"({levels[1]}): leave that arm out"
        )
    for rival in rivals:
        check_rival(rival, heads[1], heads[0])
    args = get_cfg(overrides={**keys, "task": model.task, "data": resolve_data(data), "cache": False})
    check_pretrained(args.pretrained)
    check_freeze(model.model, args.freeze)
    stride = max(int(max(strides_of(dense_head(model.model, "student")))), USUAL_STRIDE)
    if mixed:
        refuse_uneven(args, stride, int(max(loaded.strides)))
    data_set = load_data(args)
    check_labels(data_set, model.task, args.split, args.fraction)
    match_run_classes(loaded.names, data_set, args)  # refuses classes= that the data do not have
    yaml = {k: v for k, v in model.model.yaml.items() if k != "yaml_file"}
    hashed = {"yaml": yaml} if not model.ckpt else {"weights": state_hash(model.model)}
    digest = hashlib.sha256(json.dumps(hashed, sort_keys=True, default=str).encode()).hexdigest()
    _read_labels(args, data_set, stride)
    hashes = loaded.sha256, digest, data_hash(data_set), data_hash({**data_set, "train": data_set[args.split]})
    return Subjects(model.task, loaded.path, str(args.data), *(h[:12] for h in hashes))


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
    epochs = get_cfg(overrides=dict(keys)).epochs
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


def _read_labels(args: Any, data: dict[str, Any], stride: int) -> None:
    """Have Ultralytics read the labels once: runs that begin together would all write the same cache file."""
    level = LOGGER.level
    LOGGER.setLevel(logging.WARNING)
    try:
        for split, mode in ((data["train"], "train"), (data[args.split], "val")):
            build_yolo_dataset(args, split, 1, data, mode=mode, rect=False, stride=stride)
    finally:
        LOGGER.setLevel(level)


def _bytes(tensor: Tensor) -> bytes:
    """Return the bytes of a batch's tensor."""
    return bytes(tensor.detach().cpu().contiguous().numpy().tobytes())
