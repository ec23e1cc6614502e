"""The trainers of the arms of a comparison, which take notes on the run."""

from __future__ import annotations

import hashlib
import time
from typing import Any

import torch
from torch import Tensor
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.models.yolo.obb import OBBTrainer
from ultralytics.utils.torch_utils import unwrap_model

from ds2d2_yolo.bridge.models.teacher import state_hash
from ds2d2_yolo.bridge.training.compared.notes import Notes
from ds2d2_yolo.bridge.training.compared.rival_trainer import RivalOBBTrainer, RivalTrainer
from ds2d2_yolo.bridge.training.hooks.atomic_checkpoints import AtomicCheckpoints, finalize_checkpoints
from ds2d2_yolo.bridge.training.trainer import DS2D2OBBTrainer, DS2D2Trainer
from ds2d2_yolo.bridge.upstream.hardware import peak_memory
from ds2d2_yolo.errors import DS2D2Error


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
        """Note which objects the first epoch shows, in their order and as they were augmented.

        The batches that calibrate a quantised student come before the first epoch, and are not noted.
        """
        if getattr(self, "epoch", None) == 0:
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


def _bytes(tensor: Tensor) -> bytes:
    """Return the bytes of a batch's tensor."""
    return bytes(tensor.detach().cpu().contiguous().numpy().tobytes())
