"""What a run did, step by step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from ultralytics.utils.torch_utils import unwrap_model


@dataclass
class Trace:
    """The loss of every step of a run, and its weights in float32 when it ended."""

    losses: list[float] = field(default_factory=list)
    weights: dict[str, torch.Tensor] = field(default_factory=dict)

    def follow(self, run: Any) -> None:
        run.add_callback("on_train_batch_end", lambda t: self.losses.append(float(t.loss.detach())))
        run.add_callback("on_train_end", lambda t: self.weights.update(unwrap_model(t.model).state_dict()))


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Return whether two sets of weights are equal to the bit."""
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
