"""Unlabelled images in the batches of a trainer. Not part of the published method.

The training loader stays that of the labelled images. They come in the same order and with the same augmentations as in
a run without unlabelled images whose batch is as large as the labelled part. The unlabelled part is appended to each
batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from ultralytics.utils import RANK

from ds2d2_yolo.bridge.data.unlabelled.batches import BatchStream, CycledOrder, NumberedBatches, build_second_dataset
from ds2d2_yolo.bridge.distillation.unlabelled.labelled_rows import LABELLED, LOSS_IMAGES
from ds2d2_yolo.bridge.preflight.prepared_run import PreparedRun
from ds2d2_yolo.config.batch_parts import BatchParts


class SecondImages:
    """Appends a fixed number of images to each training batch of a trainer.

    Ultralytics counts the labelled images only: the steps of an epoch, the batches of an optimizer step (`nbs`) and the
    weight decay are those of a run with the labelled part as its batch.

    Args:
        trainer (Any): The trainer.
        images (Sequence[Path]): The images beside the labelled ones.
        share (float): Their share of a batch.
        with_labels (bool): Whether they have label files that count, as pseudo-labels do.
    """

    def __init__(self, trainer: Any, images: Sequence[Path], share: float, with_labels: bool = False) -> None:
        self._trainer = trainer
        self._images = images
        self._share = share
        self._with_labels = with_labels
        self._stream: BatchStream | None = None

    @classmethod
    def of(cls, trainer: Any, run: PreparedRun, with_labels: bool) -> SecondImages | None:
        """Return the collaborator of a run, None without unlabelled images.

        Args:
            trainer (Any): The trainer.
            run (PreparedRun): Its run.
            with_labels (bool): Whether the images have label files that count.

        Returns:
            (SecondImages | None): The collaborator.
        """
        if run.unlabelled is None:
            return None
        return cls(trainer, run.unlabelled.images, run.settings.unlabelled_share, with_labels)

    @property
    def parts(self) -> BatchParts:
        """(BatchParts): The parts of this process's batch."""
        return BatchParts.of(int(self._trainer.batch_size), self._share, self._processes)

    def all_images(self, labelled: int) -> int:
        """Return the images of an epoch.

        Args:
            labelled (int): Labelled images, each of which an epoch shows once.

        Returns:
            (int): Labelled images and those beside them.
        """
        return round(labelled / (1 - self._share))

    @property
    def number(self) -> int:
        """(int): Images beside the labelled ones."""
        return len(self._images)

    @property
    def _processes(self) -> int:
        """(int): Processes that share a batch."""
        return max(int(self._trainer.world_size), 1)

    @contextmanager
    def labelled_batch(self) -> Iterator[None]:
        """Let the trainer's batch size be that of the labelled images while the context lasts."""
        trainer = self._trainer
        batch, parts = trainer.batch_size, self.parts
        trainer.batch_size = parts.labelled * self._processes
        try:
            yield
        finally:
            trainer.batch_size = batch

    def build(self) -> None:
        """Build the batches; to be called when the training loader was built, also after an out-of-memory restart."""
        self.close()
        trainer, batch = self._trainer, self.parts.unlabelled
        dataset = build_second_dataset(trainer.run.teacher_args, trainer.data, self._images, batch, self._with_labels)
        order = CycledOrder(len(dataset), batch, trainer.args.seed, max(RANK, 0), self._processes)
        workers, pinned = trainer.train_loader.num_workers, trainer.train_loader.pin_memory
        self._stream = BatchStream(NumberedBatches(dataset, order), workers, pinned)

    def start_epoch(self) -> None:
        """Go to the first batch of the trainer's epoch, also of a resumed run."""
        assert self._stream is not None
        self._stream.seek(self._trainer.epoch * len(self._trainer.train_loader))

    def close_mosaic(self) -> None:
        """End mosaics."""
        assert self._stream is not None
        self._stream.close_mosaic(self._trainer.args)

    def close(self) -> None:
        """End the workers."""
        if self._stream is not None:
            self._stream.close()

    def extend(self, batch: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Append the next images to a batch of labelled ones.

        Args:
            batch (dict[str, Any]): Ultralytics' batch, on the host.

        Returns:
            batch (dict[str, Any]): Both, the labelled ones first, tensors on the trainer's device.
            facts (dict[str, Any]): Entries that stay on the host: `labelled`, B bool, says which images have labels,
                `loss_images` is the number of images that the losses are multiplied by.
        """
        assert self._stream is not None
        second = self._stream.take()
        rows = len(batch["img"]), len(second["img"])
        second["batch_idx"] = second["batch_idx"] + rows[0]
        joined = {key: self._join(value, second[key]) for key, value in batch.items()}
        labelled = torch.arange(sum(rows)) < (sum(rows) if self._with_labels else rows[0])
        return joined, {LABELLED: labelled, LOSS_IMAGES: rows[0]}

    def _join(self, first: Any, second: Any) -> Any:
        """Return the entries of two batches as one."""
        if isinstance(first, Tensor):
            device, wait = self._trainer.device, self._trainer.device.type in {"cpu", "mps"}
            return torch.cat([part.to(device, non_blocking=not wait) for part in (first, second)])
        return [*first, *second]
