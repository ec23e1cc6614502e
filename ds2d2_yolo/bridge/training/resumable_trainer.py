"""A trainer that writes its files atomically and continues exactly after an interruption."""

from __future__ import annotations

from typing import Any

from ultralytics.models.yolo.detect import DetectionTrainer

from ds2d2_yolo.bridge.training.hooks.atomic_checkpoints import AtomicCheckpoints
from ds2d2_yolo.bridge.training.hooks.exact_resume import ExactResume


class ResumableTrainer(DetectionTrainer):
    """Calls the hooks of `AtomicCheckpoints` and `ExactResume` where Ultralytics' trainer has the methods for them.

    A subclass sets the attributes, and calls the hooks that depend on its own set-up: `prepare_dataset`,
    `restore_weights` and `step_due`.

    Attributes:
        checkpoints (AtomicCheckpoints): Writes the files of an epoch.
        exact_resume (ExactResume): Writes and restores what last.pt lacks.
    """

    checkpoints: AtomicCheckpoints
    exact_resume: ExactResume

    def _build_train_pipeline(self) -> None:
        """Build loaders and optimizer as usual, and follow the training loader."""
        super()._build_train_pipeline()
        self.exact_resume.follow_loader()

    def _close_dataloader_mosaic(self) -> None:
        """End the mosaics; the loader starts over then."""
        super()._close_dataloader_mosaic()
        self.exact_resume.restart_loader()

    def _model_train(self) -> None:
        """Put the model into training mode; a resumed run's random states follow, after all callbacks."""
        super()._model_train()
        self.exact_resume.start_epoch()

    def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Count the batch, then preprocess it as usual."""
        self.exact_resume.count_batch(batch)
        return dict(super().preprocess_batch(batch))

    def save_metrics(self, metrics: dict[str, Any]) -> None:
        """Write the epoch's row atomically."""
        save = super().save_metrics
        self.checkpoints.save_metrics(lambda: save(metrics))

    def save_model(self) -> bool:
        """Save the checkpoints atomically, after the resume file of the epoch."""
        save = super().save_model
        return self.exact_resume.save(lambda: self.checkpoints.save(save))
