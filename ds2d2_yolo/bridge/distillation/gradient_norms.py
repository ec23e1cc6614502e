"""Measurement of the gradients that the task loss and the terms send into the student's neck."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from ds2d2_yolo.bridge.distillation.gains import TASK
from ds2d2_yolo.bridge.upstream.distributed import distributed

if TYPE_CHECKING:
    from ultralytics.nn.modules.head import Detect


def neck_gradients(
    head: Detect,
    task_loss: Callable[[Any], Tensor],
    terms: Callable[[list[Tensor], Any], dict[str, Tensor]],
    features: list[Tensor],
    levels: list[int],
    spare: tuple[str, ...] = (),
) -> dict[str, float]:
    """Return the norm of the gradient of the task loss and of each term in the neck outputs of one batch.

    The head runs once more on detached features. So nothing depends on the graph of the training step, which under
    `compile=True` holds features and predictions in one node; and it runs in float32 without autocast or loss scaling,
    where no small gradient is lost. Its BatchNorm layers update copies of their statistics.

    Args:
        head (Detect): The student's head, uncompiled, in training mode.
        task_loss (Callable[[Any], Tensor]): Task loss of the head's predictions, a scalar per image.
        terms (Callable[[list[Tensor], Any], dict[str, Tensor]]): The terms, at gain 1, of features and the head's
            predictions on them.
        features (list[Tensor]): The student's neck outputs.
        levels (list[int]): Levels that are distilled; the norms are over these.
        spare (tuple[str, ...]): Names of the terms, where the run can do without this measurement: it stays out then if
            the GPU's memory does not suffice for it. Ultralytics recovers from that in a run's first epoch alone.

    Returns:
        (dict[str, float]): Norms by name, the task loss's under `TASK`; the geometric mean over the processes of a
            distributed run, the same in all of them, NaN where none has a gradient; empty if none could measure.
    """
    one = features[0].new_ones((), dtype=torch.float32)
    try:
        norms, measured = _norms(head, task_loss, terms, features, levels), one
    except torch.cuda.OutOfMemoryError:
        if not spare:
            raise
        norms, measured = dict.fromkeys((TASK, *spare), one * math.nan), one * math.nan
    # asked of all processes: each has to go on measuring, or none
    *found, some = _over_processes(torch.stack([*norms.values(), measured]))
    return {} if math.isnan(some) else dict(zip(norms, found, strict=True))


def _norms(
    head: Detect,
    task_loss: Callable[[Any], Tensor],
    terms: Callable[[list[Tensor], Any], dict[str, Tensor]],
    features: list[Tensor],
    levels: list[int],
) -> dict[str, Tensor]:
    """Return the norms of this process, scalars; see `neck_gradients`."""
    with torch.enable_grad(), torch.autocast(features[0].device.type, enabled=False):
        leaves = [f.detach().float().requires_grad_() for f in features]
        buffers = {name: buffer.clone() for name, buffer in head.named_buffers()}
        preds = torch.func.functional_call(head, buffers, (list(leaves),))
        losses = {TASK: task_loss(preds), **terms(leaves, preds)}
        wanted = [leaves[i] for i in levels]
        return {name: _norm(loss, wanted) for name, loss in losses.items()}


def _norm(loss: Tensor, leaves: list[Tensor]) -> Tensor:
    """Return the norm of a loss's gradient over all leaves."""
    grads = torch.autograd.grad(loss, leaves, retain_graph=True, allow_unused=True)
    norms = [torch.linalg.vector_norm(g) for g in grads if g is not None]
    return torch.linalg.vector_norm(torch.stack(norms)) if norms else loss.new_zeros(())


def _over_processes(norms: Tensor) -> list[float]:
    """Return the geometric mean of each norm over the processes, leaving out what is not a positive number."""
    usable = norms.isfinite() & (norms > 0)
    sums = torch.stack((torch.where(usable, norms, 1).log(), usable.to(norms.dtype)))
    if distributed():
        dist.all_reduce(sums)
    logs, counts = sums.tolist()
    return [math.exp(total / n) if n else math.nan for total, n in zip(logs, counts, strict=True)]
