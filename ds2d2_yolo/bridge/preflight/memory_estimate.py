"""The memory that a training step is expected to need, from what autograd keeps of one image."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from ultralytics.nn.modules.head import Detect

from ds2d2_yolo.bridge.distillation.distiller import Distiller
from ds2d2_yolo.bridge.distillation.targets import tapped
from ds2d2_yolo.bridge.models.heads import dense_head, is_rotated
from ds2d2_yolo.report.facts import MemoryFacts

BOXES = 8  # per image: enough for every part of the losses to run, too few to weigh


class SavedBytes(saved_tensors_hooks):
    """Counts what autograd keeps for the backward pass while the context lasts.

    Each storage counts once, however many operations keep it. The tensors stay alive with the counter, or a later one
    could take the address of an earlier one.

    Args:
        *owners (nn.Module): Modules whose parameters and buffers are there anyway and do not count.

    Examples:
        >>> x, layer = torch.ones(2, 3), nn.Linear(3, 4)
        >>> saved = SavedBytes(layer)
        >>> with saved:
        ...     y = layer(x)
        >>> saved.bytes
        24
    """

    def __init__(self, *owners: nn.Module) -> None:
        super().__init__(self._keep, lambda x: x)
        self._own = {_address(t) for m in owners for t in (*m.parameters(), *m.buffers())}
        self._kept: dict[int, Tensor] = {}

    @property
    def bytes(self) -> int:
        """(int): Bytes kept so far."""
        return sum(t.untyped_storage().nbytes() for t in self._kept.values())

    def _keep(self, tensor: Tensor) -> Tensor:
        """Note a tensor that autograd saves, and let it."""
        address = _address(tensor)
        if address not in self._own:
            self._kept[address] = tensor
        return tensor


def _address(tensor: Tensor) -> int:
    """Return where a tensor's storage lies."""
    return tensor.untyped_storage().data_ptr()


def kept_for_backward(student: Any, distiller: Distiller | None, batch: dict[str, Any]) -> tuple[int, int]:
    """Return what autograd keeps of a batch: in the student, its own loss and the distilled terms.

    Args:
        student (Any): A copy of the student, on the batch's device; its BatchNorm statistics change.
        distiller (Distiller | None): Of copies too; None where no term is on.
        batch (dict[str, Any]): See `sample_batch`.

    Returns:
        kept (int): Bytes of all of it.
        head (int): Bytes of the student's head and own loss among them.
    """
    student.train()
    criterion = student.init_criterion()
    dense = getattr(criterion, "one2many", criterion)
    modules = (student,) if distiller is None else (student, *frozen_and_adapters(distiller))
    marks: list[int] = []
    saved = SavedBytes(*modules)
    with saved:
        handle = dense_head(student, "the student").register_forward_pre_hook(lambda *_: marks.append(saved.bytes))
        predictions = student(batch["img"])
        handle.remove()
        with tapped(dense.assigner) as seen:
            loss = criterion(predictions, batch)[0]
        head = saved.bytes - marks[0]
        if distiller is not None:
            outputs = dense.parse_output(predictions)
            outputs = outputs.get("one2many", outputs)
            own = distiller.own(dense_head(student, "the student"), outputs)
            loss = loss, distiller.terms(outputs["feats"], distiller.guide(batch["img"]), seen[0], own)
    return saved.bytes, head


def frozen_and_adapters(distiller: Distiller) -> list[nn.Module]:
    """Return the modules of a distillation besides the student."""
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
    own = torch.Generator().manual_seed(0)
    boxes = torch.rand(BOXES, 5 if is_rotated(head) else 4, generator=own) * 0.2
    boxes[:, :2] += 0.4
    return {
        "img": torch.rand(1, channels, imgsz, imgsz, generator=own),
        "batch_idx": torch.zeros(BOXES),
        "cls": torch.zeros(BOXES, 1),
        "bboxes": boxes,
    }


def expected_memory(
    student: Any,
    distiller: Distiller | None,
    args: Namespace,
    kept: tuple[int, int],
    imgsz: int,
    devices: int,
    amp: bool,
) -> MemoryFacts:
    """Estimate what a training step needs on one device.

    ``weights + gradients + optimizer + EMA + teacher + amplifier + images x (activations + measuring)``. What lives for
    a moment only is not in it: buffers of the teacher's pass and of the backward pass, the working space of convolution
    kernels, the driver's own memory and what an allocator holds back. On a CPU the process of a YOLOv8s -> YOLOv8n run
    (obb, 320 px with 8 images, 640 px with 4) grew by 1.2 to 1.5 times the estimate; no GPU was measured.

    Args:
        student (Any): The student, what `freeze=` names frozen.
        distiller (Distiller | None): Its distillation.
        args (Namespace): The run's Ultralytics settings.
        kept (tuple[int, int]): What `kept_for_backward` found for one image of `imgsz`, in float32.
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
        activations=round(kept[0] * area / (2 if amp else 1)),
        measuring=0 if distiller is None else round(kept[1] * area),
        images=max(args.batch // devices, 1) if known else None,
        imgsz=round(largest),
        halved=amp,
    )


def _bytes(module: nn.Module) -> int:
    """Return the bytes of a module's parameters and buffers."""
    return sum(t.nbytes for t in (*module.parameters(), *module.buffers()))
