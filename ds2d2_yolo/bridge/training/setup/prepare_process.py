"""Preparation of a torchrun run in a process without the other ranks: report and amplifier.

Ultralytics' trainers and validators communicate with the other processes wherever a rank is set (8.4.190). Therefore
neither the amplifier's training nor the teacher's validation can run inside rank 0.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.utils.child_process import ChildError, run_child

WORKER = "ds2d2_yolo.bridge.training.setup.prepare_worker"
# variables that torchrun sets
RANK_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE",
                  "MASTER_ADDR", "MASTER_PORT")  # fmt: skip
RANK_PREFIXES = ("ROLE_", "TORCHELASTIC_", "TORCH_NCCL_")


def prepare_in_process(keys: Mapping[str, Any], processes: int) -> tuple[dict[str, str], str | None]:
    """Report on a run and obtain its amplifier in a process of its own, which writes to this one's output.

    Args:
        keys (Mapping[str, Any]): DS2D2 and Ultralytics settings of the run, with one device.
        processes (int): Processes of the run, which share a batch.

    Returns:
        files (dict[str, str]): Contents of the report's files by name.
        amplifier (str | None): Path of the amplifier, None for a run without `imhi`.

    Raises:
        DS2D2Error: If that process failed; it printed the reason.
    """
    single = {k: v for k, v in os.environ.items() if k not in RANK_VARIABLES and not k.startswith(RANK_PREFIXES)}
    try:
        files, amplifier = run_child(WORKER, {"keys": dict(keys), "processes": processes}, single, show_output=True)
    except ChildError as e:
        raise DS2D2Error("the report or the amplifier's training failed, see above: the run has not begun") from e
    return files, amplifier
