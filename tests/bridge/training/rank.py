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

from ds2d2_yolo.bridge.training import trainer as trainer_module
from tests.helpers.gloo_ranks import DDPWithoutIds, RecordingRank


class Rank(RecordingRank):
    """A rank whose group meets in a file."""

    def _setup_ddp(self) -> None:
        place = f"file://{Path(sys.argv[2]).resolve()}/meeting"  # a port could be taken until then
        dist.init_process_group("gloo", place, timedelta(seconds=300), self.world_size, RANK)

    def final_eval(self) -> None:
        """Not without accelerators: ranks other than the first find no device there."""

    def validate(self) -> Any:
        """Not over gloo either; every rank has to have the same say on it."""
        return {}, 0.1


if __name__ == "__main__":
    settings, folder = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2])
    with (
        patch.object(nn.parallel, "DistributedDataParallel", DDPWithoutIds),
        patch.object(trainer_module, "refuse_process_count"),  # device=cpu names one device
    ):
        trainer = Rank(overrides=settings)
        trainer.world_size = int(os.environ["WORLD_SIZE"])
        trainer.train()
    torch.save(trainer.state_at_the_end(), folder / f"rank{RANK}.pt")
    dist.destroy_process_group()
