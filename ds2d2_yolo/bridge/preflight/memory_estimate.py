"""Expected memory of a training step, extrapolated from the bytes that autograd saves for one image."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from ultralytics.nn.modules.head import Detect

from ds2d2_yolo.bridge.distillation.batch import StudentInputs
from ds2d2_yolo.bridge.distillation.distiller import Distiller
from ds2d2_yolo.bridge.distillation.targets import capture_targets
from ds2d2_yolo.bridge.models.heads import dense_head, is_rotated
from ds2d2_yolo.report.facts import MemoryFacts

BOXES = 8  # per image: enough for every part of the losses to run, too few to weigh


class SavedBytes(saved_tensors_hooks):
    """Counts the bytes that autograd saves for the backward pass while the context lasts.

    Each storage counts once, however many operations save it. The tensors live as long as the counter, so that no later
    tensor takes the address of an earlier one.

    Args:
        *owners (nn.Module): Modules whose parameters and buffers do not count, since they exist anyway.

    Examples:
        >>> x, layer = torch.ones(2, 3), nn.Linear(3, 4)
        >>> saved = SavedBytes(layer)
        >>> with saved:
        ...     y = layer(x)
        >>> saved.bytes
        24
    """

    def __init__(self, *owners: nn.Module) -> None:
        super().__init__(self._save, lambda x: x)
        self._excluded = {_address(t) for m in owners for t in (*m.parameters(), *m.buffers())}
        self._saved: dict[int, Tensor] = {}

    @property
    def bytes(self) -> int:
        """(int): Bytes saved so far."""
        return sum(t.untyped_storage().nbytes() for t in self._saved.values())

    def _save(self, tensor: Tensor) -> Tensor:
        """Note a tensor that autograd saves, and return it."""
        address = _address(tensor)
        if address not in self._excluded:
            self._saved[address] = tensor
        return tensor


def _address(tensor: Tensor) -> int:
    """Return the address of a tensor's storage."""
    return tensor.untyped_storage().data_ptr()


def saved_for_backward(student: Any, distiller: Distiller | None, batch: dict[str, Any]) -> tuple[int, int]:
    """Return the bytes that autograd saves for a batch: in the student, its task loss and the distilled terms.

    Args:
        student (Any): A copy of the student, on the batch's device; its BatchNorm statistics change.
        distiller (Distiller | None): Built from copies; None where no term is on.
        batch (dict[str, Any]): See `sample_batch`.

    Returns:
        total (int): Bytes of all of it.
        head (int): Bytes of the student's head and task loss among them.
    """
    student.train()
    criterion = student.init_criterion()
    modules = (student,) if distiller is None else (student, *frozen_and_adapters(distiller))
    before_head: list[int] = []
    saved = SavedBytes(*modules)
    with saved:
        handle = dense_head(student, "the student").register_forward_pre_hook(
            lambda *_: before_head.append(saved.bytes)
        )
        outputs = student(batch["img"])
        handle.remove()
        with capture_targets(criterion) as targets:
            loss = criterion(outputs, batch)[0]
        head = saved.bytes - before_head[0]
        if distiller is not None:
            inputs = StudentInputs.of(criterion, outputs, targets[0])
            loss = loss, distiller(inputs, distiller.teacher_outputs(batch["img"]))
    return saved.bytes, head


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
    saved: tuple[int, int],
    imgsz: int,
    devices: int,
    amp: bool,
) -> MemoryFacts:
    """Estimate what a training step needs on one device.

    ``weights + gradients + optimizer + EMA + teacher + amplifier + images x (activations + measuring)``. Short-lived
    memory is not included: buffers of the teacher's pass and of the backward pass, workspaces of convolution kernels,
    the driver's memory and the allocator's reserve. On a CPU the process of a YOLOv8s -> YOLOv8n run (obb, 320 px with
    8 images, 640 px with 4) grew by 1.2 to 1.5 times the estimate; no GPU was measured.

    Args:
        student (Any): The student; the layers that `freeze=` names are frozen.
        distiller (Distiller | None): The distillation, None where no term is on.
        args (Namespace): The run's Ultralytics settings.
        saved (tuple[int, int]): `saved_for_backward` of one image of `imgsz`, in float32.
        imgsz (int): Side of the image in pixels.
        devices (int): Devices that share a batch.
        amp (bool): Whether the run takes mixed precision; the activations are then halved.

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
        activations=round(saved[0] * area / (2 if amp else 1)),
        measuring=0 if distiller is None else round(saved[1] * area),
        images=max(args.batch // devices, 1) if known else None,
        imgsz=round(largest),
        halved=amp,
    )


def _bytes(module: nn.Module) -> int:
    """Return the bytes of a module's parameters and buffers."""
    return sum(t.nbytes for t in (*module.parameters(), *module.buffers()))
