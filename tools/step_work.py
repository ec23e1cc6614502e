"""The parts of a distilled training step and the work of each, counted from their operators."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from bench_core import random_boxes
from operator_count import GPU, Kernel, Work, count, fake_tensors, to_fake
from torch import Tensor
from ultralytics.cfg import get_cfg
from ultralytics.nn.tasks import DetectionModel, OBBModel, yaml_model_load

from ds2d2_yolo.bridge.distillation.batch import StudentInputs
from ds2d2_yolo.bridge.distillation.build import build_distiller
from ds2d2_yolo.bridge.distillation.distiller import Distiller
from ds2d2_yolo.bridge.distillation.targets import Targets
from ds2d2_yolo.bridge.distillation.weighting import weight_maps
from ds2d2_yolo.bridge.models.heads import dense_head, is_rotated, level_channels, strides_of
from ds2d2_yolo.bridge.models.teacher import Teacher
from ds2d2_yolo.config.settings import Settings

FLOOR = ("student", "student's loss", "teacher")
CPU, EXPLICIT, FUSED = torch.device("cpu"), "exlo, exhi", "exlo, exhi, fused"
# Settings that leave a term, and for imhi imfu. The implicit terms do not depend on the explicit ones for a teacher
# whose adapters are composed with its head (`composing_saves`).
TERMS: dict[str, dict[str, Any]] = {
    EXPLICIT: {"implicit": False},
    FUSED: {"implicit": False, "fused_explicit": True},
    "imfu": {"explicit": False, "imhi": 0.0},
    "imhi": {"explicit": False},
}


@dataclass(frozen=True)
class Case:
    """What is counted."""

    teacher: str
    student: str
    imgsz: int
    half: bool = True
    batch: int = 16
    boxes: int = 50
    classes: int = 15

    @property
    def name(self) -> str:
        """(str): Of the pair, such as 'YOLOv8x-obb to YOLOv8n-obb'."""
        return " to ".join(Path(yaml).stem.replace("yolo", "YOLO") for yaml in (self.teacher, self.student))


@dataclass(frozen=True)
class Part:
    """The work of one part of the step."""

    forward: Work = field(default_factory=Work)
    backward: Work = field(default_factory=Work)

    def __add__(self, other: Part) -> Part:
        """Return both parts as one."""
        return Part(self.forward + other.forward, self.backward + other.backward)

    def __sub__(self, other: Part) -> Part:
        """Return the part without another one that it includes."""
        return Part(self.forward - other.forward, self.backward - other.backward)

    @property
    def work(self) -> Work:
        """(Work): Of both passes."""
        return self.forward + self.backward


@dataclass(frozen=True)
class Counted:
    """The work of a case.

    Attributes:
        case (Case): What was counted.
        parts (dict[str, Part]): By name; their sum is a step with all four terms.
        fused (Part): Explicit terms with `fused_explicit`.
        minimum (Part): Least traffic of the explicit terms.
    """

    case: Case
    parts: dict[str, Part]
    fused: Part
    minimum: Part

    @property
    def floor(self) -> Work:
        """(Work): Plain step of the student and forward pass of the teacher."""
        return sum((self.parts[name].work for name in FLOOR), Work())

    def step(self, fused: bool = False, without: tuple[str, ...] = ()) -> Work:
        """Return the work of a step with all four terms.

        Args:
            fused (bool): Whether with `fused_explicit`.
            without (tuple[str, ...]): Parts to leave out.

        Returns:
            (Work): Of the step.
        """
        parts = self.parts | ({EXPLICIT: self.fused} if fused else {})
        return sum((part.work for name, part in parts.items() if name not in without), Work())


def make_model(case: Case, yaml: str) -> Any:
    """Return an untrained model with Ultralytics' default arguments."""
    model_class = OBBModel if "obb" in yaml else DetectionModel
    model = model_class({**yaml_model_load(yaml), "nc": case.classes}, verbose=False)
    model.args, model.task = get_cfg(overrides={"imgsz": case.imgsz}), "obb" if "obb" in yaml else "detect"
    return model


class Step:
    """The models of a case, and the work of each part of its step.

    Autocast does not act on fake GPUs: what it changes is counted with fake tensors of a CPU, whose operators are the
    same. Weight map and explicit terms are computed otherwise on a GPU: they are counted on a fake one, with weights
    in half precision. The student's loss reads values: it runs on a CPU, with random tensors.
    """

    def __init__(self, case: Case) -> None:
        self.case, self.dtype = case, torch.float16 if case.half else torch.float32
        self.student = make_model(case, case.student).to(memory_format=torch.channels_last).train()
        self.head: Any = dense_head(self.student, "the student")
        self.rotated, self.channels = is_rotated(self.head), level_channels(self.head)
        self.strides = strides_of(self.head)
        self.cells = [(math.ceil(case.imgsz / s), math.ceil(case.imgsz / s)) for s in self.strides]
        self.distiller = self._distiller()
        self.modules = [self.distiller.teacher.model, self.distiller.adapters]
        if self.distiller.amplifier is not None:
            self.modules.append(self.distiller.amplifier.head)

    def _distiller(self) -> Distiller:
        """Return the distiller of all terms, with a teacher of random weights."""
        model = make_model(self.case, self.case.teacher).eval().requires_grad_(False)
        head = dense_head(model, "the teacher")
        names = tuple(str(n) for n in range(self.case.classes))
        teacher = Teacher("", model, "", names, is_rotated(head), strides_of(head))
        distiller = build_distiller(self.head, teacher, self._settings("imhi"))
        for view in (distiller.teacher.head, *([] if distiller.amplifier is None else [distiller.amplifier.head])):
            view.stride = strides_of(view)  # numbers: a fake tensor has no values to read
        return distiller

    def _settings(self, name: str) -> Settings:
        """Return the settings of an entry of `TERMS`."""
        return Settings(gains=1.0, **TERMS[name])

    def count(self) -> Counted:
        """Return the work of each part."""
        loss, shape = self._loss(), (self.case.batch, 3, self.case.imgsz, self.case.imgsz)
        with fake_tensors(CPU):
            for module in (self.student, *self.modules):
                to_fake(module, CPU)
            images, student = torch.empty(*shape), self._student_inputs()
            teacher = Part(self._forward(lambda: self.distiller.teacher(images))[0])
            parts = {"student": self._student(images), "student's loss": loss, "teacher": teacher}
            parts["adapters"], _ = self._adapters(student)
            implicit = self._implicit(student, images, teacher)
        with fake_tensors(GPU):
            for module in self.modules:
                to_fake(module, GPU, self.dtype)
            parts |= self._explicit(self._student_inputs(), torch.empty(*shape, dtype=self.dtype))
        fused = parts.pop(FUSED)
        return Counted(self.case, parts | implicit, fused, self._explicit_minimum())

    def _forward(self, run: Callable[[], Any]) -> tuple[Work, Any]:
        """Count a forward pass under AMP. The context is a new one: it keeps weights that it cast to half precision."""
        with torch.autocast("cpu", torch.float16, enabled=self.case.half):
            return count(run)

    def _student(self, images: Tensor) -> Part:
        """Return the work of the student without its loss."""
        forward, raw = self._forward(lambda: self.student(images))
        return Part(forward, backward([x for key, x in raw.items() if key != "feats"]))

    def _loss(self) -> Part:
        """Return the work of the student's loss."""
        case, anchors = self.case, sum(h * w for h, w in self.cells)
        widths = {"boxes": 4 * self.head.reg_max, "scores": case.classes} | ({"angle": 1} if self.rotated else {})
        raw: dict[str, Any] = {
            key: torch.randn(case.batch, n, anchors).to(self.dtype).requires_grad_() for key, n in widths.items()
        }
        raw["feats"] = [torch.empty(case.batch, 1, *cells, dtype=self.dtype) for cells in self.cells]
        boxes, index = random_boxes(case.boxes, case.batch, float(case.imgsz), self.rotated, CPU)
        boxes[:, :4] /= case.imgsz
        batch = {"cls": torch.zeros(len(boxes), 1), "bboxes": boxes, "batch_idx": index.float()}
        criterion = self.student.init_criterion()
        forward, (loss, _) = self._forward(lambda: criterion(raw, batch))
        return Part(forward, backward([loss.sum()]))

    def _student_inputs(self) -> StudentInputs:
        """Return neck features, as the student's forward pass leaves them, and ground truth; fake tensors."""
        features = [
            torch.empty(self.case.batch, n, *cells, dtype=self.dtype, memory_format=torch.channels_last)
            for n, cells in zip(self.channels, self.cells, strict=True)
        ]
        boxes = torch.empty(self.case.batch, self.case.boxes, 5 if self.rotated else 4)
        return StudentInputs([x.requires_grad_() for x in features], Targets(boxes, boxes[..., 0] > 0))

    def _clear_gradients(self, student: StudentInputs) -> None:
        """Forget gradients of an earlier pass: the next one would be added to them."""
        for x in (*student.features, *self.distiller.adapters.parameters()):
            x.grad = None

    def _adapters(self, student: StudentInputs) -> tuple[Part, list[Tensor]]:
        """Return the work of the adapters, and the adapted features."""
        self._clear_gradients(student)
        pairs = list(zip(self.distiller.adapters, student.features, strict=True))
        forward, adapted = self._forward(lambda: [adapter(x) for adapter, x in pairs])
        return Part(forward, backward(adapted)), adapted

    def _terms(self, name: str, student: StudentInputs, images: Tensor) -> tuple[Work, Part]:
        """Return the work of the teacher's outputs, and that of the terms of `TERMS`."""
        self.distiller.settings = self._settings(name)
        teacher, outputs = self._forward(lambda: self.distiller.teacher_outputs(images))
        self._clear_gradients(student)
        forward, losses = self._forward(lambda: self.distiller(student, outputs))
        return teacher, Part(forward, backward(list(losses.values())))

    def _implicit(self, student: StudentInputs, images: Tensor, teacher: Part) -> dict[str, Part]:
        """Return the work of the implicit terms; that of `imhi` is what it adds to `imfu`."""
        predictions, imfu = self._terms("imfu", student, images)
        amplified, both = self._terms("imhi", student, images)
        return {
            "teacher's predictions": Part(predictions) - teacher,
            "imfu": imfu,
            "amplifier": Part(amplified - predictions),
            "imhi": both - imfu,
        }

    def _explicit(self, student: StudentInputs, images: Tensor) -> dict[str, Part]:
        """Return the work of the weight map and of the explicit terms, by operators and by fused kernels."""
        adapters, adapted = self._adapters(student)
        strides, settings = self.distiller.strides, self._settings(EXPLICIT)
        maps = Part(count(lambda: list(weight_maps(settings, adapted, strides, student.targets, None)))[0])
        parts = {name: self._terms(name, student, images)[1] - adapters - maps for name in (EXPLICIT, FUSED)}
        return {"weight map": maps, **parts}

    def _explicit_minimum(self) -> Part:
        """Return the least traffic of the explicit terms: two reads forward, two reads and one write backward."""
        channels = [adapter.out_channels for adapter in self.distiller.adapters]
        values = sum(n * h * w for n, (h, w) in zip(channels, self.cells, strict=True)) * self.case.batch
        return Part(*(Work(Counter([Kernel(n * values * self.dtype.itemsize)])) for n in (2, 3)))


def backward(values: list[Tensor]) -> Work:
    """Count the backward pass of values, given their gradients."""
    gradients = [torch.empty_like(x) for x in values]
    work, _ = count(lambda: torch.autograd.backward(values, gradients))
    return work
