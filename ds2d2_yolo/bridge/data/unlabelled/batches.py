"""Batches of unlabelled images, each a function of its number: nothing has to be saved for an exact resume.

Order, augmentation and mosaics of a batch follow from the seed and from the number of the batch in the run. Processes
of DDP take consecutive parts of one order.
"""

from __future__ import annotations

import random
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info
from ultralytics.data.dataset import YOLODataset
from ultralytics.utils import colorstr

from ds2d2_yolo.bridge.upstream.rng_state import RandomState


class LabelledList(YOLODataset):
    """Ultralytics' data set of a list of image files with label files."""

    def get_img_files(self, img_path: Sequence[Path]) -> list[str]:
        """Return the images of the list."""
        return [str(image) for image in img_path]


class UnlabelledDataset(LabelledList):
    """Ultralytics' data set of the labelled images for images without labels: the same augmentations, no objects."""

    def get_labels(self) -> list[dict[str, Any]]:
        """Return empty labels; no label file is looked for."""
        return [
            {
                "im_file": image, "cls": np.zeros((0, 1), np.float32), "bboxes": np.zeros((0, 4), np.float32),
                "segments": [], "keypoints": None, "normalized": True, "bbox_format": "xywh",
            }
            for image in self.im_files
        ]  # fmt: skip


def build_second_dataset(
    args: Namespace, data: Mapping[str, Any], images: Sequence[Path], batch: int, with_labels: bool = False
) -> YOLODataset:
    """Build the data set of the images beside the labelled ones, as Ultralytics builds a training set.

    Args:
        args (Namespace): Ultralytics' settings of the run.
        data (Mapping[str, Any]): The data set.
        images (Sequence[Path]): The images.
        batch (int): Images in the part of a batch; Ultralytics sizes the mosaic buffer by it.
        with_labels (bool): Whether label files of the images are read, such as those of pseudo-labels.

    Returns:
        (YOLODataset): With augmentation.
    """
    # the options are those of `build_yolo_dataset` for mode='train' (8.4.190)
    kind, name = (LabelledList, "pseudo-labelled: ") if with_labels else (UnlabelledDataset, "unlabelled: ")
    return kind(
        img_path=images, imgsz=args.imgsz, batch_size=batch, augment=True, hyp=args, rect=False,
        cache=args.cache or None, single_cls=args.single_cls or False, pad=0.0, prefix=colorstr(name), task=args.task,
        classes=args.classes if with_labels else None, data=dict(data), fraction=1.0,
    )  # fmt: skip


class CycledOrder:
    """Endless order of images: one seeded permutation after another, divided among batches and processes.

    Args:
        images (int): Number of images.
        batch (int): Images of one process in a batch.
        seed (int): Seed of the run.
        rank (int): Number of this process.
        processes (int): Processes that share a batch.
    """

    def __init__(self, images: int, batch: int, seed: int, rank: int = 0, processes: int = 1) -> None:
        self.images = images
        self.batch = batch
        self._seed = seed
        self._rank = rank
        self._processes = processes

    def indices(self, number: int) -> list[int]:
        """Return the images of a batch in this process.

        Args:
            number (int): Number of the batch in the run, from 0.

        Returns:
            (list[int]): Indices of images.
        """
        first = (number * self._processes + self._rank) * self.batch
        places = (divmod(place, self.images) for place in range(first, first + self.batch))
        return [_permutation(self.images, self._seed, cycle)[place] for cycle, place in places]

    def random_seed(self, number: int) -> int:
        """Return the seed of a batch's augmentations.

        Args:
            number (int): Number of the batch.

        Returns:
            (int): 32 bits.
        """
        return int(np.random.SeedSequence((self._seed, self._rank, number)).generate_state(1)[0])

    def before(self, number: int, step: int, limit: int) -> list[int]:
        """Return the images of the batches `number - step`, `number - 2 step`, ...: those of one worker.

        Args:
            number (int): Number of a batch.
            step (int): Number of workers.
            limit (int): Images at most; the latest ones count.

        Returns:
            (list[int]): Distinct indices, the oldest first.
        """
        latest: dict[int, None] = {}
        while (number := number - step) >= 0 and len(latest) < limit:
            latest |= dict.fromkeys(reversed(self.indices(number)))
        return list(latest)[:limit][::-1]


@lru_cache(maxsize=4)
def _permutation(images: int, seed: int, cycle: int) -> list[int]:
    """Return the order of the images in one cycle."""
    return [int(i) for i in np.random.default_rng((seed, cycle)).permutation(images)]


class NumberedBatches(Dataset[dict[str, Any]]):
    """The batches of a data set by their numbers.

    Mosaics take their other images from those that the worker loaded last, as Ultralytics' do. The buffer is set before
    each batch, so that a batch depends on nothing but its number and the number of workers.

    Args:
        dataset (YOLODataset): Of unlabelled images only, with a buffer of its own.
        order (CycledOrder): The order of its images.
    """

    def __init__(self, dataset: YOLODataset, order: CycledOrder) -> None:
        self.dataset = dataset
        self.order = order
        self.mixes = True
        self._limit = dataset.max_buffer_length
        dataset.max_buffer_length = len(dataset) + 1  # the buffer is cut here, before the next batch

    def __getitem__(self, number: int) -> dict[str, Any]:
        """Return a batch, made with random states of its own."""
        worker = get_worker_info()
        with _seeded(self.order.random_seed(number), restore=worker is None):
            self._fill_buffer(number, worker.num_workers if worker else 1)
            batch: dict[str, Any] = self.dataset.collate_fn([self.dataset[i] for i in self.order.indices(number)])
        return batch

    def close_mosaic(self, args: Namespace) -> None:
        """End mosaics and other mixtures of images.

        Args:
            args (Namespace): Ultralytics' settings of the run; they are not changed.
        """
        self.mixes = False
        self.dataset.close_mosaic(hyp=copy(args))

    def _fill_buffer(self, number: int, workers: int) -> None:
        """Hold exactly the images of the worker's latest batches for mosaics."""
        dataset = self.dataset
        if dataset.cache == "ram":  # mosaics take any image then, and all are in memory
            return
        latest_indices = self.order.before(number, workers, self._limit) if self.mixes else []
        for i in set(dataset.buffer) - set(latest_indices):
            dataset.ims[i], dataset.im_hw0[i], dataset.im_hw[i] = None, None, None
        for i in latest_indices:
            dataset.load_image(i)
        dataset.buffer[:] = latest_indices


@contextmanager
def _seeded(seed: int, restore: bool) -> Iterator[None]:
    """Seed the global generators; restore them at the end where the training draws from them too."""
    before = RandomState.capture(cuda=False) if restore else None
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed CUDA too
    try:
        yield
    finally:
        if before is not None:
            before.apply()


class _Numbers(Sampler[int]):
    """The numbers of all batches from a first one on."""

    def __init__(self, first: int) -> None:
        self._first = first

    def __iter__(self) -> Iterator[int]:
        number = self._first
        while True:
            yield number
            number += 1


class BatchStream:
    """Yields the numbered batches in their order, through worker processes; it can begin anywhere.

    Args:
        batches (NumberedBatches): The batches.
        workers (int): Worker processes, 0 for none.
        pin_memory (bool): Whether batches are copied into pinned memory.
    """

    def __init__(self, batches: NumberedBatches, workers: int, pin_memory: bool) -> None:
        self.batches = batches
        self.workers = workers
        self._pin_memory = pin_memory
        self._next = 0
        self._iterator: Any = None

    def seek(self, number: int) -> None:
        """Continue with a batch.

        Args:
            number (int): Its number.
        """
        if number != self._next:
            self.close()
            self._next = number

    def take(self) -> dict[str, Any]:
        """Return the next batch."""
        if self._iterator is None:
            self._iterator = iter(self._loader())
        self._next += 1
        batch: dict[str, Any] = next(self._iterator)
        return batch

    def close_mosaic(self, args: Namespace) -> None:
        """End mosaics from the next batch on.

        Args:
            args (Namespace): Ultralytics' settings of the run.
        """
        self.close()
        self.batches.close_mosaic(args)

    def close(self) -> None:
        """End the workers."""
        if hasattr(self._iterator, "_shutdown_workers"):
            self._iterator._shutdown_workers()
        self._iterator = None

    def _loader(self) -> DataLoader[Any]:
        """Return a loader of whole batches; a generator of its own leaves the global one alone."""
        return DataLoader(
            self.batches, batch_size=None, sampler=_Numbers(self._next), num_workers=self.workers,
            pin_memory=self._pin_memory, generator=torch.Generator(), collate_fn=_unchanged,
        )  # fmt: skip


def _unchanged(batch: Any) -> Any:
    """Return a batch, which is collated already."""
    return batch
