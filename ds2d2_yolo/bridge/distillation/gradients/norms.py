"""Norms of the gradients that the task loss and the terms send into the student's neck."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from ds2d2_yolo.bridge.distillation.batch import StudentInputs, TeacherOutputs
from ds2d2_yolo.bridge.distillation.gradients.levels import TASK, level_key
from ds2d2_yolo.bridge.distillation.unlabelled.labelled_rows import loss_images, task_loss
from ds2d2_yolo.bridge.models.heads import strides_of
from ds2d2_yolo.bridge.upstream.distributed import distributed

if TYPE_CHECKING:
    from ultralytics.nn.modules.head import Detect

    from ds2d2_yolo.bridge.distillation.distiller import Distiller


def measure_gradients(
    criterion: Any,
    head: Detect,
    distiller: Distiller,
    student: StudentInputs,
    teacher: TeacherOutputs,
    batch: dict[str, Any],
    optional: Sequence[str] = (),
) -> dict[str, float]:
    """Return the norm of the gradient of the task loss and of each term in the neck outputs of one batch.

    The head runs once more on detached features. The result therefore does not depend on the graph of the training
    step, which under `compile=True` holds features and predictions in one node. It runs in float32 without autocast or
    loss scaling, so that no small gradient is lost. Its BatchNorm layers update copies of their statistics.

    Args:
        criterion (Any): The student's usual criterion.
        head (Detect): The student's head, uncompiled, in training mode.
        distiller (Distiller): Computes the terms at gain 1; the norms cover its levels.
        student (StudentInputs): The student's side of the batch.
        teacher (TeacherOutputs): The teacher's side.
        batch (dict[str, Any]): The batch, as Ultralytics' criterion takes it.
        optional (Sequence[str]): If given, the names of the terms: a CUDA out-of-memory error skips this measurement
            instead of raising. Used once the gains are known; Ultralytics recovers from such an error in the first
            epoch only.

    Returns:
        (dict[str, float]): Norms by name, the task loss under `TASK`: over all distilled levels, and on each level
            under `level_key`. In a distributed run the geometric mean over the processes, equal in all of them. NaN
            where no process has a gradient; empty if one could not measure.
    """
    one = student.features[0].new_ones((), dtype=torch.float32)
    try:
        norms, measured = _gradient_norms(criterion, head, distiller, student, teacher, batch), one
    except torch.cuda.OutOfMemoryError:
        if not optional:
            raise
        names = (TASK, *optional)
        keys = [key for name in names for key in (name, *_level_keys(name, head, distiller))]
        norms, measured = dict.fromkeys(keys, one * math.nan), one * math.nan
    # every process takes part: all of them go on measuring, or none does
    *values, all_measured = _mean_over_processes(torch.stack([*norms.values(), measured]))
    return {} if math.isnan(all_measured) else dict(zip(norms, values, strict=True))


def _gradient_norms(
    criterion: Any,
    head: Detect,
    distiller: Distiller,
    student: StudentInputs,
    teacher: TeacherOutputs,
    batch: dict[str, Any],
) -> dict[str, Tensor]:
    """Return the norms of this process as scalars, see `measure_gradients`."""
    with torch.enable_grad(), torch.autocast(student.features[0].device.type, enabled=False):
        losses, leaves = neck_losses(criterion, head, distiller, student, teacher, batch)
        norms: dict[str, Tensor] = {}
        for name, loss in losses.items():
            keys = (name, *_level_keys(name, head, distiller))
            norms |= dict(zip(keys, _loss_gradient_norms(loss, leaves), strict=True))
        return norms


def neck_losses(
    criterion: Any,
    head: Detect,
    distiller: Distiller,
    student: StudentInputs,
    teacher: TeacherOutputs,
    batch: dict[str, Any],
) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Return the losses of a batch as functions of detached neck outputs, for `torch.autograd.grad`.

    Gradients have to be on and autocast off.

    Args:
        criterion (Any): As in `measure_gradients`, as all arguments are.
        head (Detect): Its BatchNorm layers update copies of their statistics.
        distiller (Distiller): Computes the terms.
        student (StudentInputs): The student's side of the batch.
        teacher (TeacherOutputs): The teacher's side.
        batch (dict[str, Any]): The batch.

    Returns:
        losses (dict[str, Tensor]): The task loss of an image under `TASK`, then each term at gain 1.
        leaves (list[Tensor]): Float32 neck outputs of the distilled levels.
    """
    features = [f.detach().float().requires_grad_() for f in student.features]
    buffers = {name: buffer.clone() for name, buffer in head.named_buffers()}
    outputs = torch.func.functional_call(head, buffers, (list(features),))
    inputs = replace(student, features=features)
    task = task_loss(criterion, outputs, batch)[0].sum() / loss_images(batch)
    return {TASK: task, **distiller(inputs, teacher)}, [features[i] for i in distiller.levels]


def _level_keys(name: str, head: Detect, distiller: Distiller) -> list[str]:
    """Return the keys of a loss's norms on the distilled levels."""
    strides = strides_of(head)
    return [level_key(name, strides[i]) for i in distiller.levels]


def _loss_gradient_norms(loss: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    """Return the norm of a loss's gradient over all leaves, then the norm on each leaf, 0 for a leaf without one."""
    grads = torch.autograd.grad(loss, leaves, retain_graph=True, allow_unused=True)
    norms = [None if g is None else torch.linalg.vector_norm(g) for g in grads]
    reached = [norm for norm in norms if norm is not None]
    zero = loss.new_zeros(())
    total = torch.linalg.vector_norm(torch.stack(reached)) if reached else zero
    return [total, *(zero if norm is None else norm for norm in norms)]


def _mean_over_processes(norms: Tensor) -> list[float]:
    """Return the geometric mean of each norm over the processes; only positive finite norms count."""
    usable = norms.isfinite() & (norms > 0)
    sums = torch.stack((torch.where(usable, norms, 1).log(), usable.to(norms.dtype)))
    if distributed():
        dist.all_reduce(sums)
    logs, counts = sums.tolist()
    return [math.exp(total / n) if n else math.nan for total, n in zip(logs, counts, strict=True)]
