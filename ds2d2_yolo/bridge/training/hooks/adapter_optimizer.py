"""The adapters in the optimizer: a parameter group and a clipping norm of their own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.utils.torch_utils import unwrap_model

from ds2d2_yolo.bridge.models.adapters import get_adapters, without_adapters

CLIP_NORM = 10.0  # Ultralytics' value
SHRUNK = 0.8  # a step counts as shrunk below this share of the task gradient that clipping without the terms leaves


class AdapterOptimizer:
    """Optimises the adapters beside the student's weights, not among them.

    Attributes:
        step_norms (list[Tensor]): Norm of the student's gradient in each step of the epoch, before clipping.
    """

    def __init__(self) -> None:
        self.step_norms: list[Tensor] = []

    def build(self, model: nn.Module, build_optimizer: Callable[[], torch.optim.Optimizer]) -> torch.optim.Optimizer:
        """Build the plain run's optimizer, and append a parameter group for the adapters.

        Among the student's weights they would be decayed, and orthogonalised by MuSGD.

        Args:
            model (nn.Module): The student, with or without adapters.
            build_optimizer (Callable[[], torch.optim.Optimizer]): Ultralytics' own method, bound to its arguments.

        Returns:
            (torch.optim.Optimizer): With the adapters' group last.
        """
        student = unwrap_model(model)
        adapters = get_adapters(student)
        if adapters is None:
            return build_optimizer()
        with without_adapters(student):
            optimizer = build_optimizer()
        last: Mapping[str, Any] = optimizer.param_groups[-1]
        group = {k: v for k, v in last.items() if k not in {"params", "param_group", "use_muon", "weight_decay"}}
        group |= {"weight_decay": 0.0, "param_group": "adapter", "params": list(adapters.parameters())}
        if "use_muon" in last:
            group["use_muon"] = False
        optimizer.add_param_group(group)
        return optimizer

    def step(self, trainer: Any, optimizer_step: Callable[[], None]) -> None:
        """Step as Ultralytics does, with the adapters clipped separately.

        One norm over both would let large adapter gradients shrink the student's.

        Args:
            trainer (Any): The trainer.
            optimizer_step (Callable[[], None]): Ultralytics' own method, for a student without adapters.
        """
        adapters = get_adapters(unwrap_model(trainer.model))
        adapter_weights = list(adapters.parameters()) if adapters is not None else []
        if not adapter_weights:
            optimizer_step()
            return
        ids = {id(p) for p in adapter_weights}
        trainer.scaler.unscale_(trainer.optimizer)
        student_weights = [p for p in trainer.model.parameters() if id(p) not in ids]
        self.step_norms.append(torch.nn.utils.clip_grad_norm_(student_weights, max_norm=CLIP_NORM).detach())
        torch.nn.utils.clip_grad_norm_(adapter_weights, max_norm=CLIP_NORM)
        trainer.scaler.step(trainer.optimizer)
        trainer.scaler.update()
        trainer.optimizer.zero_grad()
        if trainer.ema:
            trainer.ema.update(trainer.model)


def clipped_share(norms: Sequence[float]) -> float:
    """Return the share of steps whose gradient was clipped; a step that the loss scaler skips was not.

    Args:
        norms (Sequence[float]): Norm of the student's gradient in each step of the epoch, before clipping.

    Returns:
        (float): From 0 to 1.
    """
    return sum(CLIP_NORM < n < math.inf for n in norms) / len(norms) if norms else 0.0


def clipping_warning(norms: Sequence[float], shares: Mapping[str, float]) -> str | None:
    """Return a warning about steps in which clipping cut the task's gradient because the terms had added theirs.

    With terms that send c times the task's gradient, at right angles to it, the task's own norm is n / sqrt(1 + c^2).

    Args:
        norms (Sequence[float]): Norm of the student's gradient in each step of the epoch, before clipping.
        shares (Mapping[str, float]): Measured share of each term.

    Returns:
        (str | None): The worst step and the number of such steps; None if there is none.
    """
    combined = math.sqrt(1 + sum(s * s for s in shares.values() if math.isfinite(s)))
    worst, count, worst_step = 1.0, 0, 0
    for step, norm in enumerate(norms, 1):
        if not math.isfinite(norm) or norm <= CLIP_NORM:
            continue
        remaining = (CLIP_NORM / norm) / min(1.0, CLIP_NORM * combined / norm)
        if remaining < SHRUNK:
            count += 1
            worst, worst_step = min((worst, worst_step), (remaining, step))
    if not count:
        return None
    return (
        f"clipping at {CLIP_NORM:g} cut the task's gradient to {worst:.0%} of what it would be without the terms in "
        f"step {worst_step}, and below {SHRUNK:.0%} in {count} of {len(norms)} steps: lower the gains or shares"
    )
