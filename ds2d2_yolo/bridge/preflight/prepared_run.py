"""A run that is checked and prepared: everything that is known before a trainer exists."""

from __future__ import annotations

import copy
import math
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ds2d2_yolo.bridge.data.class_map import ClassMap
from ds2d2_yolo.bridge.data.unlabelled.selection import UnlabelledImages
from ds2d2_yolo.bridge.models.amplifier_store import AmplifierCard
from ds2d2_yolo.bridge.models.teacher import Teacher
from ds2d2_yolo.config.image_sizes import size_ratio
from ds2d2_yolo.config.settings import Settings
from ds2d2_yolo.errors import BadUseError

USUAL_STRIDE = 32  # Ultralytics rounds image sizes to multiples of this, or of a coarser stride of the student


@dataclass(frozen=True)
class PreparedRun:
    """Settings, teacher and data of a run, checked against each other.

    Attributes:
        args (Namespace): Ultralytics' settings.
        settings (Settings): DS2D2 settings; without implicit stream where teacher and data share no class.
        teacher (Teacher): Loaded teacher, unfused.
        data (Mapping[str, Any]): The data set as `check_det_dataset` returns it.
        class_map (ClassMap): Classes of teacher and data.
        channels (tuple[int, ...]): The data's channels that the teacher takes.
        device (torch.device): The first device.
        amplifier_path (Path | None): The amplifier that the user named, or the copy in a resumed run's folder.
        amplifier_card (AmplifierCard | None): Origin of the amplifier to look up in the store or to train.
        processes (int): Processes of the run, one on each of its devices; 1 where Ultralytics starts them later.
        unlabelled (UnlabelledImages | None): Images beside the labelled ones, None for none.
    """

    args: Namespace
    settings: Settings
    teacher: Teacher
    data: Mapping[str, Any]
    class_map: ClassMap
    channels: tuple[int, ...]
    device: torch.device
    amplifier_path: Path | None = None
    amplifier_card: AmplifierCard | None = None
    processes: int = 1
    unlabelled: UnlabelledImages | None = None

    @property
    def devices(self) -> int:
        """(int): Devices that share a batch."""
        named = len(str(self.args.device).split(",")) if self.device.type == "cuda" else 1
        return max(named, self.processes)

    @property
    def amp(self) -> bool:
        """(bool): Whether the run asks for mixed precision on a device that has it."""
        return self.device.type == "cuda" and self.args.amp not in {False, "fp32"}

    @property
    def size_ratio(self) -> int:
        """(int): Side of the teacher's images over that of the student's."""
        return size_ratio(self.args.imgsz, self.settings.teacher_imgsz)

    @property
    def teacher_args(self) -> Namespace:
        """(Namespace): Ultralytics' settings with the size of the teacher's images."""
        args = copy.copy(self.args)
        args.imgsz = self.settings.teacher_imgsz or args.imgsz
        return args

    def imgsz(self, student: Any) -> int:
        """Return the side of the training images, a multiple of the student's stride as Ultralytics makes it.

        Args:
            student (Any): The student.

        Returns:
            (int): Pixels.
        """
        size = self.args.imgsz if isinstance(self.args.imgsz, int) else max(self.args.imgsz)
        stride = max(int(student.stride.max()), USUAL_STRIDE)
        return max(math.ceil(size / stride), 1) * stride


def refuse_rounded(run: PreparedRun, imgsz: int) -> None:
    """Refuse an image size that Ultralytics rounds, where the teacher has a size of its own.

    Args:
        run (PreparedRun): The run.
        imgsz (int): From `PreparedRun.imgsz`.

    Raises:
        BadUseError: With sizes that stay as they are.
    """
    if run.settings.teacher_imgsz is not None and imgsz != run.args.imgsz:
        sizes = f"imgsz={imgsz} teacher_imgsz={run.size_ratio * imgsz}"
        raise BadUseError(f"imgsz={run.args.imgsz} is no multiple of the student's coarsest stride: give {sizes}")
