"""The pair of models that `explain` shows: loaded, checked against each other, with adapters fitted to images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ds2d2_yolo.bridge.data.class_map import ClassMap, class_names, match_classes
from ds2d2_yolo.bridge.data.images import decode_image
from ds2d2_yolo.bridge.distillation.build import build_distiller
from ds2d2_yolo.bridge.distillation.distiller import Distiller
from ds2d2_yolo.bridge.inference.backend_model import BackendModel, NMSSettings
from ds2d2_yolo.bridge.inference.fit_adapters import fit_adapters
from ds2d2_yolo.bridge.models.adapters import detach_adapters
from ds2d2_yolo.bridge.models.amplifier_store import check_amplifier, load_amplifier
from ds2d2_yolo.bridge.models.heads import dense_head, is_rotated, strides_of
from ds2d2_yolo.bridge.models.input_channels import fit_channels, input_channels
from ds2d2_yolo.bridge.models.loading import load_student
from ds2d2_yolo.bridge.models.teacher import FrozenTeacher, Teacher, load_teacher, state_hash
from ds2d2_yolo.bridge.validation.recording import to_xywhr
from ds2d2_yolo.config.settings import Settings
from ds2d2_yolo.errors import BadUseError, DS2D2Error
from ds2d2_yolo.explanation.options import ExplainOptions
from ds2d2_yolo.utils.detections import Detections

RUN_AMPLIFIER = "amplifier.safetensors"  # in the folder of a run
NO_AMPLIFIER = "no high-frequency amplifier given"
FIT_BATCH = 8
DEFAULT_IMGSZ = 640  # of a student that does not hold the size of its training


@dataclass
class ExplainedPair:
    """Teacher and student of an explanation.

    Attributes:
        teacher (Teacher): The loaded teacher; its model is folded by the distiller.
        student (Teacher): The loaded student, in the same form.
        distiller (Distiller): Levels, adapters, amplifiers and compared classes.
        class_map (ClassMap): Classes of teacher and student.
        channels (tuple[int, ...]): The data's channels that the teacher takes.
        imgsz (int): Side of the network's input in pixels.
        no_amplifier (str): Why there is no high-frequency amplifier, empty if there is one.
        device (torch.device): Device of the models.
    """

    teacher: Teacher
    student: Teacher
    distiller: Distiller
    class_map: ClassMap
    channels: tuple[int, ...]
    imgsz: int
    no_amplifier: str
    device: torch.device

    def __post_init__(self) -> None:
        """Move the models to the device; the student gives its neck features as a teacher does."""
        self._student_trunk = FrozenTeacher(self.student, self.student.strides).to(self.device)
        self.distiller.to(self.device)

    @property
    def task(self) -> str:
        """(str): 'detect' or 'obb'."""
        return "obb" if self.student.rotated else "detect"

    @property
    def shared(self) -> str:
        """(str): How many of the student's classes the teacher has."""
        count, every = len(self.class_map.pairs), len(self.student.names)
        part = "all classes of the student" if count == every else f"{count} of the student's {every} classes"
        return f"the teacher has {part}"

    def features(self, inputs: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return the neck features of student and teacher on the shared levels, finest first.

        Args:
            inputs (Tensor): B x C x H x W in [0, 1].

        Returns:
            student (list[Tensor]): S of each level.
            teacher (list[Tensor]): T of each level.
        """
        every = self._student_trunk.features(inputs.to(self.device))
        return [every[i] for i in self.distiller.levels], self.distiller.teacher.features(inputs.to(self.device))

    def fit(self, images: Sequence[Path]) -> int:
        """Fit the adapters to images.

        Args:
            images (Sequence[Path]): Files; those that cannot be read are left out.

        Returns:
            (int): Number of images that are used.

        Raises:
            DS2D2Error: If none can be read, or the features are not finite.
        """
        channels = input_channels(self.student.model)
        decoded = (decode_image(image, channels) for image in images)
        pixels = [x for x in decoded if x is not None and x.shape[2] == channels]
        if not pixels:
            raise DS2D2Error(f"none of {len(images)} images, such as {images[0]}, can be read with {channels} channels")
        weights = fit_adapters(self._features_in_batches(pixels))
        with torch.no_grad():
            for adapter, weight in zip(self.distiller.adapters.parameters(), weights, strict=True):
                adapter.copy_(weight)
        return len(pixels)

    def detections(self, which: str, inputs: Tensor, conf: float) -> list[Detections]:
        """Return the detections of a model.

        Args:
            which (str): 'teacher' or 'student'.
            inputs (Tensor): B x C x H x W in [0, 1], with the data's channels.
            conf (float): Lowest score.

        Returns:
            (list[Detections]): Of each image, in pixels of the input.
        """
        backend = self._teacher_backend if which == "teacher" else self._student_backend
        taken = inputs[:, list(self.channels)] if which == "teacher" else inputs
        nms = NMSSettings(conf=conf, candidate_conf=conf, iou=0.7, max_det=300, agnostic=False)
        rows = backend.detections(backend.forward(taken.to(self.device)), nms)
        return [_to_detections(x, self.student.rotated) for x in rows]

    @cached_property
    def _teacher_backend(self) -> BackendModel:
        """The teacher with its decoding and NMS."""
        return BackendModel(Path(self.teacher.path), self.task, self.device)

    @cached_property
    def _student_backend(self) -> BackendModel:
        """The student with its decoding and NMS."""
        return BackendModel(Path(self.student.path), self.task, self.device)

    def _features_in_batches(self, pixels: Sequence[NDArray[np.uint8]]) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
        """Yield the features of images, a batch at a time."""
        for start in range(0, len(pixels), FIT_BATCH):
            inputs = self._student_backend.prepare(pixels[start : start + FIT_BATCH], (self.imgsz, self.imgsz))
            yield self.features(inputs)


def load_pair(
    options: ExplainOptions, data_channels: int, device: torch.device, imgsz: int | None = None
) -> ExplainedPair:
    """Load student, teacher and amplifier, and check them against each other.

    Args:
        options (ExplainOptions): Options with teacher and student.
        data_channels (int): Channels of the data set.
        device (torch.device): Device of the models.
        imgsz (int | None): Image size in pixels, rounded up to a multiple of the strides; None takes that of the
            student's training.

    Returns:
        (ExplainedPair): Its adapters are not fitted yet.

    Raises:
        BadUseError: If a model is missing or of another kind or task, or the models share no level or no class.
    """
    student, trained_imgsz = load_explained_student(str(options.student))
    teacher = load_teacher(options.teacher, "obb" if student.rotated else "detect")
    if (student_channels := input_channels(student.model)) != data_channels:
        raise BadUseError(
            f"student={options.student} takes {student_channels} channels and the data have {data_channels}"
        )
    channels = fit_channels(teacher, data_channels, options.teacher_channels)
    class_map = match_classes(teacher.names, student.names)
    if not class_map.pairs:
        data, names = ", ".join(student.names[:8]), ", ".join(teacher.names[:8])
        raise BadUseError(f"teacher and student share no class: the student has {data}; the teacher has {names}")
    state, reason = _amplifier(options, teacher)
    settings = Settings(
        teacher=teacher.path, wavelet=options.wavelet, levels=options.levels, gains=1.0, imhi=float(state is not None)
    )
    distiller = build_distiller(
        dense_head(student.model, "student"), teacher, settings, class_map=class_map, amplifier_state=state
    )
    stride = int(max(*student.strides, *teacher.strides, 32))
    imgsz = -(-(imgsz or trained_imgsz) // stride) * stride  # the next multiple
    return ExplainedPair(teacher, student, distiller, class_map, channels, imgsz, reason, device)


def load_explained_student(name: str) -> tuple[Teacher, int]:
    """Load a trained student, distilled or not.

    Args:
        name (str): Checkpoint or a release's name.

    Returns:
        student (Teacher): In eval mode, without gradients and without adapters.
        imgsz (int): Image size of its training in pixels.

    Raises:
        BadUseError: If it is missing, unreadable, untrained (.yaml) or fused.
    """
    if name.lower().endswith((".yaml", ".yml")):
        raise BadUseError(f"student={name} is untrained: name a trained checkpoint (.pt)")
    yolo = load_student(name)
    model: Any = yolo.model
    head = dense_head(model, f"student={name}")
    if head.cv2 is None:
        raise BadUseError(f"student={name} was fused for inference: use the checkpoint that training left")
    detach_adapters(model)
    model.eval().requires_grad_(False)
    file = Path(str(getattr(model, "pt_path", None) or yolo.ckpt_path or name)).absolute()
    student = Teacher(str(file), model, state_hash(model), class_names(model.names), is_rotated(head), strides_of(head))
    size = yolo.overrides.get("imgsz") or DEFAULT_IMGSZ
    return student, int(size if isinstance(size, int) else max(size))


def _amplifier(options: ExplainOptions, teacher: Teacher) -> tuple[dict[str, Tensor] | None, str]:
    """Return the weights of the amplifier, or None and the reason. The one of the run's folder may belong to another.

    Raises:
        BadUseError: If the amplifier that the user names does not fit.
    """
    run_file = Path(str(options.student)).absolute().parent.parent / RUN_AMPLIFIER
    file = Path(options.amplifier) if options.amplifier else run_file
    if not options.amplifier and not run_file.is_file():
        return None, NO_AMPLIFIER
    try:
        state, card = load_amplifier(file)
        check_amplifier(card, teacher, options.wavelet, file)
    except BadUseError:
        if options.amplifier:
            raise
        return None, f"{NO_AMPLIFIER}: that of the student's run does not fit this teacher"
    return state, ""


def _to_detections(rows: Tensor, rotated: bool) -> Detections:
    """Return Ultralytics' rows, xyxy or xywh, score, class and angle, as detections."""
    boxes = to_xywhr(torch.cat((rows[:, :4], rows[:, 6:7]), 1) if rotated else rows[:, :4])
    columns = rows.cpu().double().numpy()
    return Detections(boxes.astype("float64"), columns[:, 4], columns[:, 5].astype("int64"), rotated)
