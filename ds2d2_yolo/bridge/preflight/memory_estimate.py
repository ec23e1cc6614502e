"""Expected memory of a training step, extrapolated from the bytes that autograd saves for one image."""

from __future__ import annotations

import io
from argparse import Namespace
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from ultralytics.nn.modules.head import Detect
from ultralytics.utils.torch_utils import prepare_qat

from ds2d2_yolo.bridge.distillation.batch import StudentInputs
from ds2d2_yolo.bridge.distillation.distiller import Distiller
from ds2d2_yolo.bridge.distillation.targets import capture_assigner_calls
from ds2d2_yolo.bridge.distillation.teacher_size import TEACHER_IMAGE, share_batch, teacher_images
from ds2d2_yolo.bridge.models.heads import dense_head, is_rotated
from ds2d2_yolo.bridge.upstream.logging import warnings_only
from ds2d2_yolo.report.facts import MemoryFacts

BOXES = 8  # per image: enough for every part of the losses to run, too few to weigh


class SavedBytes(saved_tensors_hooks):
    """Counts the bytes that autograd saves for the backward pass while the context lasts.

    Each storage counts once, however many operations save it. The tensors live as long as the counter, so that no later
    tensor takes the address of an earlier one.

    Args:
        *owners (nn.Module): Modules whose parameters and buffers do not count, since they exist anyway.
        images (int | None): Images of the batch. Four-dimensional tensors with another first dimension are then copies
            of weights: casts to half precision, and products of adapters and heads (`composed_head.py`).

    Examples:
        >>> x, layer = torch.ones(2, 3), nn.Linear(3, 4)
        >>> saved = SavedBytes(layer)
        >>> with saved:
        ...     y = layer(x)
        >>> saved.bytes
        24
    """

    def __init__(self, *owners: nn.Module, images: int | None = None) -> None:
        super().__init__(self._save, lambda x: x)
        self._excluded = {_address(t) for m in owners for t in (*m.parameters(), *m.buffers())}
        self._images = images
        self._saved: dict[int, Tensor] = {}

    @property
    def bytes(self) -> int:
        """(int): Bytes saved so far."""
        return sum(t.untyped_storage().nbytes() for t in self._saved.values())

    @property
    def copies(self) -> int:
        """(int): Bytes of the copies of weights among them, 0 without `images`."""
        if self._images is None:
            return 0
        # one channel: a wavelet transform, which takes channels as images
        weights = [t for t in self._saved.values() if t.ndim == 4 and t.shape[0] != self._images and t.shape[1] > 1]
        return sum(t.untyped_storage().nbytes() for t in weights)

    def _save(self, tensor: Tensor) -> Tensor:
        """Note a tensor that autograd saves, and return it."""
        address = _address(tensor)
        if address not in self._excluded:
            self._saved.setdefault(address, tensor)
        return tensor


def _address(tensor: Tensor) -> int:
    """Return the address of a tensor's storage."""
    return tensor.untyped_storage().data_ptr()


@dataclass(frozen=True)
class SavedParts:
    """Bytes that autograd saves for the backward pass of a batch.

    Attributes:
        neck (int): For the images, in the student's layers before its head.
        head (int): For the images, in its head and the task loss.
        terms (int): For the images, in the distilled terms.
        copies (int): Copies of weights, whatever the images.
    """

    neck: int
    head: int
    terms: int
    copies: int

    @property
    def images(self) -> int:
        """(int): All that grows with the images."""
        return self.neck + self.head + self.terms


@dataclass(frozen=True)
class StepBytes:
    """Memory of a training step that autograd decides.

    Attributes:
        activations (int): Bytes that autograd saves for one image, and the teacher's image where it is larger.
        measuring (int): More of them for one image in the batches that measure the gains.
        copies (int): Copies of weights, whatever the images.
    """

    activations: int
    measuring: int
    copies: int


def saved_for_backward(
    student: Any, distiller: Distiller | None, batch: dict[str, Any], amp: bool = False
) -> SavedParts:
    """Return the bytes that autograd saves for a batch.

    Args:
        student (Any): A copy of the student, on the batch's device; its BatchNorm statistics change.
        distiller (Distiller | None): Built from copies; None where no term is on.
        batch (dict[str, Any]): See `sample_batch`.
        amp (bool): Whether the step runs under autocast, in bfloat16.

    Returns:
        (SavedParts): By part.
    """
    student.train()
    criterion = student.init_criterion()
    modules = (student,) if distiller is None else (student, *frozen_and_adapters(distiller))
    saved = SavedBytes(*modules, images=len(batch["img"]))
    marks: list[int] = []

    def mark(*_: Any) -> None:
        """Note the bytes so far, without copies of weights."""
        marks.append(saved.bytes - saved.copies)

    with saved, torch.autocast(batch["img"].device.type, torch.bfloat16, enabled=amp):
        handle = dense_head(student, "the student").register_forward_pre_hook(mark)
        outputs = student(batch["img"])
        handle.remove()
        with capture_assigner_calls(criterion) as calls:
            loss = criterion(outputs, batch)[0]
        mark()
        if distiller is not None:
            inputs = StudentInputs.of(criterion, outputs, calls[0].targets)
            loss = loss, distiller(inputs, distiller.teacher_outputs(teacher_images(batch)))
        mark()
    neck, student_bytes, total = marks
    return SavedParts(neck, student_bytes - neck, total - student_bytes, saved.copies)


def step_bytes(
    student: Any, distiller: Distiller | None, channels: int, imgsz: int, amp: bool, ratio: int = 1
) -> StepBytes:
    """Measure one image on the CPU.

    The batches that measure the gains run head, task loss and terms a second time, in float32 and before the terms of
    the step exist (`gradients/norms.py`), so that ``measuring = head + terms in float32 - terms``.

    Args:
        student (Any): As in `saved_for_backward`.
        distiller (Distiller | None): As in `saved_for_backward`.
        channels (int): Channels of the image.
        imgsz (int): Its side in pixels.
        amp (bool): Whether the run takes mixed precision. It is measured in bfloat16, which has the size of float16.
        ratio (int): Side of the teacher's image over that of the student's. A larger image is in memory all the time.

    Returns:
        (StepBytes): For images of `imgsz`.
    """
    batch = share_batch(sample_batch(dense_head(student, "the student"), channels, ratio * imgsz), ratio)
    larger = batch[TEACHER_IMAGE].nbytes if TEACHER_IMAGE in batch else 0
    parts = saved_for_backward(student, distiller, batch, amp)
    if distiller is None:
        return StepBytes(parts.images + larger, 0, parts.copies)
    single = saved_for_backward(student, distiller, batch) if amp else parts
    return StepBytes(parts.images + larger, single.head + single.terms - parts.terms, parts.copies)


def fake_quantised(student: Any, channels: int, imgsz: int) -> Any:
    """Insert fake quantisers into a student as Ultralytics does; the ranges are those of noise.

    Args:
        student (Any): A copy of the student, with the run's settings as `args`. It is changed.
        channels (int): Channels of an image.
        imgsz (int): Its side in pixels.

    Returns:
        (Any): The same. Of a convolution autograd saves the rounded input and the rounded weight.
    """
    batch = sample_batch(dense_head(student, "the student"), channels, imgsz)
    with warnings_only(), redirect_stdout(io.StringIO()):  # ModelOpt prints the number of quantisers
        return prepare_qat(student, [batch], lambda images: images, batches=1)


def frozen_and_adapters(distiller: Distiller) -> list[nn.Module]:
    """Return the modules of a distillation other than the student.

    Args:
        distiller (Distiller): The distillation.

    Returns:
        (list[nn.Module]): The teacher, the adapters, and the amplifier's head if there is an amplifier.
    """
    amplifier = [] if distiller.amplifier is None else [distiller.amplifier.head]
    return [distiller.teacher.model, distiller.adapters, *amplifier]


def sample_batch(head: Detect, channels: int, imgsz: int) -> dict[str, Any]:
    """Return a batch of one image of noise with a few boxes, as Ultralytics' losses take it.

    Args:
        head (Detect): The student's head.
        channels (int): Channels of the image.
        imgsz (int): Its side in pixels.

    Returns:
        (dict[str, Any]): 'img' (1 x C x H x W, 0 to 1), 'batch_idx', 'cls', 'bboxes' (shares of the image, with an
            angle in radians for oriented heads).
    """
    generator = torch.Generator().manual_seed(0)
    boxes = torch.rand(BOXES, 5 if is_rotated(head) else 4, generator=generator) * 0.2
    boxes[:, :2] += 0.4
    return {
        "img": torch.rand(1, channels, imgsz, imgsz, generator=generator),
        "batch_idx": torch.zeros(BOXES),
        "cls": torch.zeros(BOXES, 1),
        "bboxes": boxes,
    }


def expected_memory(
    student: Any,
    distiller: Distiller | None,
    args: Namespace,
    step: StepBytes,
    imgsz: int,
    devices: int,
    amp: bool,
) -> MemoryFacts:
    """Estimate what a training step needs on one device.

    ``weights + gradients + optimizer + EMA + teacher + amplifier + copies + images x (activations + measuring)``. It is
    the memory at the beginning of the backward pass. Short-lived memory is not included: buffers of the teacher's pass
    and of the backward pass, workspaces of convolution kernels, the driver's memory and the allocator's reserve.
    `docs/training.md` has the error that was measured on a CPU; no GPU was measured.

    Args:
        student (Any): The student; the layers that `freeze=` names are frozen.
        distiller (Distiller | None): The distillation, None where no term is on.
        args (Namespace): The run's Ultralytics settings.
        step (StepBytes): `step_bytes` of one image of `imgsz`.
        imgsz (int): Side of the image in pixels.
        devices (int): Devices that share a batch.
        amp (bool): Whether `step` was measured in mixed precision.

    Returns:
        (MemoryFacts): In bytes.
    """
    adapters = [] if distiller is None else [distiller.adapters]
    trained = [p for m in (student, *adapters) for p in m.parameters() if p.requires_grad]
    gradients = sum(p.nbytes for p in trained)
    weights = sum(map(_bytes, (student, *adapters)))
    frozen = [] if distiller is None else [m for m in frozen_and_adapters(distiller) if m is not distiller.adapters]
    teacher, amplifier = [*map(_bytes, frozen), 0, 0][:2]
    largest = imgsz * (1 + float(args.multi_scale or 0))
    area = (largest / imgsz) ** 2
    known = isinstance(args.batch, int) and args.batch >= 1
    return MemoryFacts(
        weights=weights,
        gradients=gradients,
        optimizer=gradients * (1 if str(args.optimizer).lower() == "sgd" else 2),  # two moments, or momentum alone
        ema=weights,
        teacher=teacher,
        amplifier=amplifier,
        copies=step.copies,
        activations=round(step.activations * area),
        measuring=round(step.measuring * area),
        images=max(args.batch // devices, 1) if known else None,
        imgsz=round(largest),
        amp=amp,
    )


def _bytes(module: nn.Module) -> int:
    """Return the bytes of a module's parameters and buffers."""
    return sum(t.nbytes for t in (*module.parameters(), *module.buffers()))
