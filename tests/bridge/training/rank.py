"""One rank of a training over gloo on a CPU; started by test_processes.py with what torchrun would set.

Ultralytics trains in several processes on accelerators alone, so this stands in for what it takes from them: the number
of processes, the group, DDP without device ids. Everything else is the real trainer.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import nn
from ultralytics.utils import RANK
from ultralytics.utils.torch_utils import unwrap_model

from ds2d2_yolo import DS2D2OBBTrainer
from ds2d2_yolo.bridge.models.adapters import get_adapters


class Rank(DS2D2OBBTrainer):
    """Looks at the first gradients, of all ranks together and of this one alone."""

    seen: dict[str, Any]

    def _setup_ddp(self) -> None:
        place = f"file://{Path(sys.argv[2]).resolve()}/meeting"  # a port could be taken until then
        dist.init_process_group("gloo", place, timedelta(seconds=300), self.world_size, RANK)

    def _setup_train(self) -> None:
        super()._setup_train()
        adapters = get_adapters(unwrap_model(self.model))
        assert adapters is not None
        self.seen = {"adapters": [a.weight.detach().clone() for a in adapters]}

    def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        batch = super().preprocess_batch(batch)
        if "batch" not in self.seen:
            self.seen["batch"] = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
            self.seen["files"] = list(batch["im_file"])
        return batch

    def optimizer_step(self) -> None:
        if "together" not in self.seen:
            model = unwrap_model(self.model)
            together = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
            self.optimizer.zero_grad()
            model(self.seen.pop("batch"))[0].sum().backward()
            self.seen |= {"together": together, "alone": [p.grad for p in model.parameters()]}
            for p, gradient in zip(model.parameters(), together, strict=True):
                p.grad = None if gradient is None else gradient.clone()
            self.seen["batch"] = None
        super().optimizer_step()

    def final_eval(self) -> None:
        """Not without accelerators: ranks other than the first find no device there."""

    def validate(self) -> Any:
        """Not over gloo either; every rank has to have the same say on it."""
        return {}, 0.1


def without_ids(module: nn.Module, device_ids: Any = None, **keys: Any) -> nn.Module:
    return DDP(module, **keys)


if __name__ == "__main__":
    settings, folder = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2])
    DDP = nn.parallel.DistributedDataParallel
    with patch.object(nn.parallel, "DistributedDataParallel", without_ids):
        trainer = Rank(overrides=settings)
        trainer.world_size = int(os.environ["WORLD_SIZE"])
        trainer.train()
    model, distiller = unwrap_model(trainer.model), trainer._distiller
    assert distiller is not None
    head = distiller.amplifier.head.state_dict() if distiller.amplifier else {}
    weights = {k: v for k, v in model.state_dict().items() if v.dtype.is_floating_point}
    places = [str(p) for p in (trainer.save_dir, trainer.last, trainer.best, trainer.csv, trainer.args.save_dir)]
    trainer.seen |= {"places": places, "weights": weights, "gains": trainer._gains.state(), "amplifier": head}
    torch.save(trainer.seen, folder / f"rank{RANK}.pt")
    dist.destroy_process_group()
