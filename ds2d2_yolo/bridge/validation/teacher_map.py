"""The teacher's mAP on the student's data, before training."""

from __future__ import annotations

import logging
import os
import tempfile
from argparse import Namespace
from collections.abc import Mapping
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader
from ultralytics.data import build_yolo_dataset
from ultralytics.models.yolo.obb import OBBValidator

from ds2d2_yolo.bridge.data.class_map import ClassMap
from ds2d2_yolo.bridge.data.dataset import map_to_teacher_classes
from ds2d2_yolo.bridge.models.teacher import Teacher
from ds2d2_yolo.bridge.upstream.logging import quiet
from ds2d2_yolo.bridge.upstream.rng_state import preserve_rng
from ds2d2_yolo.bridge.validation.no_time_limit import NoTimeLimitValidator

# Settings of the run's validation that the teacher's takes too; cache= is left out, since images are read once.
SHARED = ("agnostic_nms", "classes", "conf", "fraction", "imgsz", "iou", "max_det", "split", "workers")


class TeacherValidator(NoTimeLimitValidator):
    """Validates a teacher on the data of a run, whose labels get the teacher's class indices.

    Args:
        data (Mapping[str, Any]): The run's data set as `check_det_dataset` returns it.
        single_cls (bool): Whether the run takes all classes of its data as one.
        class_map (ClassMap): The data's classes and the teacher's.
        batches (int | None): Number of batches, spread evenly; None is all.
        **keys (Any): Arguments of Ultralytics' validator.
    """

    def __init__(
        self, data: Mapping[str, Any], single_cls: bool, class_map: ClassMap, batches: int | None, **keys: Any
    ) -> None:
        super().__init__(**keys)
        self.run_data, self.single_cls, self.class_map, self.batches = data, single_cls, class_map, batches

    def get_dataloader(self, dataset_path: str, batch_size: int) -> DataLoader[dict[str, Any]]:
        """Return the batches to validate on; the label cache on disk stays valid for the run.

        Args:
            dataset_path (str): Images of the split.
            batch_size (int): Images in a batch.

        Returns:
            (DataLoader): Batches of images of one shape each.
        """
        # Ultralytics' cache depends on the number of the data's classes and on single_cls: both as in the run
        args = copy(self.args)
        args.single_cls = self.single_cls
        dataset = build_yolo_dataset(
            args, dataset_path, batch_size, self.run_data, mode="val", rect=True, stride=self.stride
        )
        map_to_teacher_classes(dataset.labels, self.class_map)
        count = int(dataset.batch[-1]) + 1
        chosen = np.linspace(0, count - 1, min(self.batches or count, count)).round().astype(int)
        groups = [np.flatnonzero(dataset.batch == i).tolist() for i in chosen]  # images of one shape
        workers = min(self.args.workers, os.cpu_count() or 1) if len(groups) > 1 else 0
        return DataLoader(dataset, batch_sampler=groups, num_workers=workers, collate_fn=dataset.collate_fn)


class TeacherOBBValidator(TeacherValidator, OBBValidator):
    """The same for oriented boxes."""


def teacher_map(
    teacher: Teacher, data: Mapping[str, Any], args: Namespace, class_map: ClassMap, batches: int | None = None
) -> tuple[float, float]:
    """Return a teacher's mAP on the validation split of a run, over the classes that it shares with the data.

    A copy of the teacher is validated. Nothing is printed, the only file that stays is Ultralytics' label cache, and
    the global random state is restored.

    Args:
        teacher (Teacher): The teacher, unfused.
        data (Mapping[str, Any]): The run's data set as `check_det_dataset` returns it.
        args (Namespace): The run's Ultralytics settings.
        class_map (ClassMap): The data's classes and the teacher's.
        batches (int | None): Number of validation batches, spread evenly; None is all.

    Returns:
        map50 (float): mAP50, 0 to 1.
        map50_95 (float): mAP50-95, 0 to 1.
    """
    settings = {k: getattr(args, k) for k in SHARED} | {
        "task": "obb" if teacher.rotated else "detect",
        "mode": "val",
        "data": str(data.get("yaml_file", args.data)),
        "batch": args.batch if isinstance(args.batch, int) and args.batch > 0 else 16,
        "device": str(args.device or "").split(",")[0],
        "plots": False,
        "val": False,  # otherwise Ultralytics evaluates COCO and LVIS with their own tools
    }
    validator_type = TeacherOBBValidator if teacher.rotated else TeacherValidator
    with quiet(logging.CRITICAL), preserve_rng(), tempfile.TemporaryDirectory() as folder:
        validator = validator_type(
            data, bool(args.single_cls), class_map, batches, save_dir=Path(folder), args=settings
        )
        metrics = validator(model=teacher.model)
    return float(metrics["metrics/mAP50(B)"]), float(metrics["metrics/mAP50-95(B)"])
