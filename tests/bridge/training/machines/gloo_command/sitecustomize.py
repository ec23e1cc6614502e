"""Lets the real command train over gloo on a CPU; test_two_launches.py puts this folder on PYTHONPATH.

Python imports a module of this name when it starts. This one acts in the processes of the package's command alone. It
stands in for what Ultralytics takes from accelerators: their selection, the number of processes, the group, DDP without
device ids, and the device of the last evaluation.
"""

from __future__ import annotations

import os
import signal
import sys
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any


def stand_in_for_gpus() -> None:
    """Make every named device the CPU, and let a rank of torchrun train over gloo."""
    import torch
    from ultralytics.utils import torch_utils

    def select_cpu(device: Any = "", newline: bool = False, verbose: bool = True) -> torch.device:
        return torch.device("cpu")

    torch_utils.select_device = select_cpu  # before others import the name
    if "RANK" not in os.environ:  # the process that prepares the run
        return
    from torch import distributed as dist
    from torch import nn
    from ultralytics.engine import validator
    from ultralytics.utils import RANK

    from ds2d2_yolo.bridge import api
    from tests.helpers.gloo_ranks import DDPWithoutIds, RecordingRank

    backend = validator.AutoBackend
    validator.AutoBackend = lambda **keys: backend(**{**keys, "device": torch.device("cpu")})
    validator.get_torch_device_backend = lambda _: SimpleNamespace(current_device=lambda: 0)
    nn.parallel.DistributedDataParallel = DDPWithoutIds
    out = Path(os.environ["GLOO_COMMAND_OUT"])

    class Rank(RecordingRank):
        def __init__(self, *arguments: Any, **keys: Any) -> None:
            super().__init__(*arguments, **keys)
            self.world_size = int(os.environ["WORLD_SIZE"])

        def _setup_ddp(self) -> None:
            dist.init_process_group("gloo", None, timedelta(seconds=600), self.world_size, RANK)

        def run_callbacks(self, event: str) -> None:
            super().run_callbacks(event)
            killed = out / "killed"
            kill = os.environ.get("GLOO_COMMAND_KILL", "")  # rank and epoch, from 0
            if event == "on_train_batch_end" and f"{RANK}:{self.epoch}" == kill and not killed.exists():
                killed.touch()
                os.kill(os.getpid(), signal.SIGKILL)

        def train(self) -> None:
            super().train()
            torch.save(self.state_at_the_end(), out / f"rank{RANK}.pt")

    api.TRAINERS["obb"] = Rank


words = sys.orig_argv[1:]
if "-m" in words[:2] and any(word.startswith("ds2d2_yolo") for word in words[1:3]):
    stand_in_for_gpus()
