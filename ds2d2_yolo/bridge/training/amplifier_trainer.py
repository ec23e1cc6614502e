"""Trainer of the high-frequency amplifier: Ultralytics' own with a frozen trunk and the head on hf(T)."""

from __future__ import annotations

import copy
import logging
from typing import Any

from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.models.yolo.obb import OBBTrainer
from ultralytics.nn.tasks import load_checkpoint
from ultralytics.utils import LOGGER
from ultralytics.utils.callbacks import get_default_callbacks

from ds2d2_yolo.bridge.data.class_map import class_names, match_classes
from ds2d2_yolo.bridge.data.dataset import map_to_teacher_classes
from ds2d2_yolo.bridge.models.amplifier import HighFrequencyInput, one_to_many
from ds2d2_yolo.bridge.models.heads import dense_head
from ds2d2_yolo.bridge.models.teacher import Teacher
from ds2d2_yolo.bridge.training.hooks.atomic_checkpoints import AtomicCheckpoints
from ds2d2_yolo.bridge.training.hooks.exact_resume import ExactResume
from ds2d2_yolo.bridge.training.hooks.finite_steps import FiniteSteps
from ds2d2_yolo.errors import BadUseError


class _NoFreezingLines(logging.Filter):
    """Drop the line that Ultralytics logs for each frozen parameter: here those of the entire trunk."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is to be shown."""
        return not record.getMessage().startswith("Freezing layer")


class AmplifierTrainer(DetectionTrainer):
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

    def __init__(self, teacher: Teacher, wavelet: str, overrides: dict[str, Any]) -> None:
        self.teacher_names = teacher.names
        self.checkpoints = AtomicCheckpoints(self)
        self.finite_steps = FiniteSteps(self)
        self.second_images = None  # an amplifier trains on labelled images alone
        self.exact_resume = ExactResume(self, enabled=True)
        super().__init__(overrides=overrides)
        self.callbacks = get_default_callbacks()  # without those of experiment trackers, which its validator shares
        self.start = copy.deepcopy(teacher.model).requires_grad_(True)  # Ultralytics freezes what `freeze` names
        head = one_to_many(dense_head(self.start, "the teacher"))
        head.register_forward_pre_hook(HighFrequencyInput(wavelet))

    def run_callbacks(self, event: str) -> None:
        """Call nothing: experiment trackers would open a run for it, or take it for the student's."""

    def get_dataset(self) -> dict[str, Any]:
        """Return the data set under the teacher's classes, which loss, class weights and metrics then go by."""
        self.original_data: dict[str, Any] = super().get_dataset()
        self.class_map = match_classes(self.teacher_names, class_names(self.original_data["names"]))
        if self.class_map.identical:
            return self.original_data
        return {**self.original_data, "names": dict(enumerate(self.teacher_names)), "nc": len(self.teacher_names)}

    def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> Any:
        """Read the labels under the data's classes, so that their cache stays valid, then map them to the teacher's."""
        if self.class_map.identical:
            dataset = super().build_dataset(img_path, mode, batch)
        else:
            teacher_data, self.data = self.data, self.original_data
            try:
                dataset = super().build_dataset(img_path, mode, batch)
            finally:
                self.data = teacher_data
            if not map_to_teacher_classes(dataset.labels, self.class_map) and mode == "train":
                raise BadUseError(f"no training label is of a class that the teacher has: {self.class_map.describe()}")
        return self.exact_resume.prepare_dataset(dataset) if mode == "train" else dataset

    def setup_model(self) -> dict[str, Any] | None:
        """Take the prepared teacher, or on resume the model of the checkpoint (its hook travels with it)."""
        checkpoint = None
        self.model = self.start
        if self.resume:
            model, checkpoint = load_checkpoint(self.args.resume)
            self.model = model.requires_grad_(True)
        # Ultralytics stores those of the teacher's training (cls_pw) on its model, and the loss would use them
        self.model.__dict__.pop("class_weights", None)
        return dict(checkpoint) if checkpoint else None

    def _setup_train(self) -> None:
        """Set up as usual, without a line for each frozen parameter, then restore a resumed training."""
        quiet = _NoFreezingLines()
        LOGGER.addFilter(quiet)
        try:
            super()._setup_train()
        finally:
            LOGGER.removeFilter(quiet)
        self.exact_resume.restore_weights()

    def _build_train_pipeline(self) -> None:
        """Build loaders and optimizer as usual, and follow the training loader."""
        super()._build_train_pipeline()
        self.exact_resume.follow_loader()

    def _close_dataloader_mosaic(self) -> None:
        """End the mosaics; the loader starts over then."""
        super()._close_dataloader_mosaic()
        self.exact_resume.restart_loader()

    def _model_train(self) -> None:
        """Put the model into training mode, then restore the random states of a resumed training."""
        super()._model_train()
        self.exact_resume.start_epoch()

    def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Count the batch, then preprocess it as usual."""
        self.exact_resume.count_batch(batch)
        return dict(super().preprocess_batch(batch))

    def optimizer_step(self) -> None:
        """Step if a step is due and all gradients are finite."""
        if self.exact_resume.step_due() and self.finite_steps.allow_step():
            super().optimizer_step()

    def save_metrics(self, metrics: dict[str, Any]) -> None:
        """Write the epoch's row atomically."""
        save = super().save_metrics
        self.checkpoints.save_metrics(lambda: save(metrics))

    def save_model(self) -> bool:
        """Save the checkpoints atomically, after the resume file of the epoch."""
        save = super().save_model
        return self.exact_resume.save(lambda: self.checkpoints.save(save))

    def final_eval(self) -> None:
        """Leave the checkpoints unchanged: the best one is read, validated beside the teacher and removed."""


class AmplifierOBBTrainer(AmplifierTrainer, OBBTrainer):
    """The same for oriented boxes."""
