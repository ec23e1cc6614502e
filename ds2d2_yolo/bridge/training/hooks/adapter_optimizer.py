"""The adapters in the optimizer: a parameter group and a clipping norm of their own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils.torch_utils import unwrap_model

from ds2d2_yolo.bridge.models.adapters import attach_adapters, detach_adapters, get_adapters

CLIP_NORM = 10.0  # Ultralytics' own
SHRUNK = 0.8  # a step counts as shrunk when the terms leave less than this of what clipping alone leaves of the task


class AdapterOptimizing(DetectionTrainer):
    """A trainer that optimises the adapters beside the student's weights, not among them."""

    step_norms: list[Tensor]  # of the student's gradient in each step of the epoch, before clipping

    def build_optimizer(self, model: nn.Module, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """Build the plain run's optimizer, and give the adapters a parameter group of their own behind its groups.

        Among the student's weights they would be decayed, and orthogonalised by MuSGD.
        """
        bare = unwrap_model(model)
        adapters = get_adapters(bare)
        if adapters is None:
            return super().build_optimizer(model, *args, **kwargs)
        detach_adapters(bare)
        try:
            optimizer: torch.optim.Optimizer = super().build_optimizer(model, *args, **kwargs)
        finally:
            attach_adapters(bare, adapters)
        group: Mapping[str, Any] = optimizer.param_groups[-1]
        own = {k: v for k, v in group.items() if k not in {"params", "param_group", "use_muon", "weight_decay"}}
        own |= {"weight_decay": 0.0, "param_group": "adapter", "params": list(adapters.parameters())}
        if "use_muon" in group:
            own["use_muon"] = False
        optimizer.add_param_group(own)
        return optimizer

    def optimizer_step(self) -> None:
        """Step as Ultralytics does, with the adapters clipped on their own.

        One norm over both would let large adapter gradients shrink the student's.
        """
        adapters = get_adapters(unwrap_model(self.model))
        own = list(adapters.parameters()) if adapters is not None else []
        if not own:
            super().optimizer_step()
            return
        ids = {id(p) for p in own}
        self.scaler.unscale_(self.optimizer)
        student = [p for p in self.model.parameters() if id(p) not in ids]
        self.step_norms.append(torch.nn.utils.clip_grad_norm_(student, max_norm=CLIP_NORM).detach())
        torch.nn.utils.clip_grad_norm_(own, max_norm=CLIP_NORM)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        if self.ema:
            self.ema.update(self.model)


def clipped_share(norms: Sequence[float]) -> float:
    """Return the share of steps whose gradient was clipped; one that the loss scaler skips was not."""
    return sum(CLIP_NORM < n < math.inf for n in norms) / len(norms) if norms else 0.0


def clipping_remark(norms: Sequence[float], shares: Mapping[str, float]) -> str | None:
    """Return a remark on the steps in which clipping cut the task's gradient because the terms had added theirs.

    With terms that send c times the task's gradient, at right angles to it, the task's own norm is n / sqrt(1 + c^2).

    Args:
        norms (Sequence[float]): Norm of the student's gradient in each step of the epoch, before clipping.
        shares (Mapping[str, float]): Measured share of each term.

    Returns:
        (str | None): The worst step and how many there are; None if there is none.
    """
    together = math.sqrt(1 + sum(s * s for s in shares.values() if math.isfinite(s)))
    worst, count, at = 1.0, 0, 0
    for step, norm in enumerate(norms, 1):
        if not math.isfinite(norm) or norm <= CLIP_NORM:
            continue
        kept = (CLIP_NORM / norm) / min(1.0, CLIP_NORM * together / norm)
        if kept < SHRUNK:
            count += 1
            worst, at = min((worst, at), (kept, step))
    if not count:
        return None
    return (
        f"clipping at {CLIP_NORM:g} cut the task's gradient to {worst:.0%} of what it would be without the terms in "
        f"step {at}, and below {SHRUNK:.0%} in {count} of {len(norms)} steps: lower the gains or shares"
    )
