"""A trainer of one rank over gloo on a CPU, which looks at the first gradients.

Ultralytics trains in several processes on accelerators alone, so this stands in for what it takes from them: DDP
without device ids. Everything else is the real trainer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from ultralytics.utils.torch_utils import unwrap_model

from ds2d2_yolo import DS2D2OBBTrainer
from ds2d2_yolo.bridge.models.adapters import get_adapters

DDP = nn.parallel.DistributedDataParallel


class RecordingRank(DS2D2OBBTrainer):
    """Looks at the first gradients, of all ranks together and of this one alone."""

    seen: dict[str, Any]

    def _setup_train(self) -> None:
        super()._setup_train()
        adapters = get_adapters(unwrap_model(self.model))
        assert adapters is not None
        self.seen = {"adapters": [a.weight.detach().clone() for a in adapters]}

    def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        batch = super().preprocess_batch(batch)
        if "batch" not in getattr(self, "seen", {"batch": None}):  # batches that calibrate come before the set-up ends
            self.seen["batch"] = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
            self.seen["files"] = list(batch["im_file"])
        return batch

    def optimizer_step(self) -> None:
        if "together" not in self.seen:
            model = unwrap_model(self.model)
            together = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
            self.optimizer.zero_grad()
            model(self.seen.pop("batch"))[0].sum().backward()
            self.seen |= {"together": together, "rank_gradients": [p.grad for p in model.parameters()]}
            for p, gradient in zip(model.parameters(), together, strict=True):
                p.grad = None if gradient is None else gradient.clone()
            self.seen["batch"] = None
        super().optimizer_step()

    def state_at_the_end(self) -> dict[str, Any]:
        """Return what all ranks should agree on, with what was seen of the first batch."""
        distiller = self.distiller
        assert distiller is not None
        head = distiller.amplifier.head.state_dict() if distiller.amplifier else {}
        weights = {k: v for k, v in unwrap_model(self.model).state_dict().items() if v.dtype.is_floating_point}
        places = [str(p) for p in (self.save_dir, self.last, self.best, self.csv, self.args.save_dir)]
        return {**self.seen, "places": places, "weights": weights, "gains": self.gains.state(), "amplifier": head}


class DDPWithoutIds(DDP):
    """DDP without the ids of devices; a class, as ModelOpt asks for it."""

    def __init__(self, module: nn.Module, device_ids: Any = None, **keys: Any) -> None:
        super().__init__(module, **keys)


def check_same_state(seen: list[dict[str, Any]]) -> None:
    """Assert that all ranks began with the same adapters and amplifier, and ended with the same gains and weights."""
    first, *others = seen
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(first["adapters"], other["adapters"], strict=True))
        assert first["amplifier"].keys() == other["amplifier"].keys() != set()
        assert all(torch.equal(v, other["amplifier"][k]) for k, v in first["amplifier"].items())
        assert first["gains"] == other["gains"]
    check_same_weights(seen)
    assert first["gains"]["frozen"]


def check_same_weights(seen: list[dict[str, Any]]) -> None:
    """Assert that all ranks ended with the same weights, but for the statistics of each."""
    first, *others = seen
    for other in others:
        assert all(torch.equal(v, other["weights"][k]) for k, v in first["weights"].items() if "running" not in k)


def check_mean_gradients(seen: list[dict[str, Any]]) -> None:
    """Assert that each gradient of all ranks together is the mean of the ranks' own.

    Each rank's loss is multiplied by their number, and DDP takes the mean: undone, it is the mean of the ranks' own.
    """
    moved = 0
    for i, together in enumerate(seen[0]["together"]):
        rank_gradients = [s["rank_gradients"][i] for s in seen]
        if together is None:
            assert all(g is None or not g.any() for g in rank_gradients)
            continue
        mean = torch.stack([torch.zeros_like(together) if g is None else g for g in rank_gradients]).mean(0)
        tolerance = 1e-5 * float(mean.abs().max()) + 1e-9
        torch.testing.assert_close(together / len(seen), mean, rtol=1e-4, atol=tolerance)
        moved += bool(together.any())
    assert moved > 100
