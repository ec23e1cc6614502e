"""What a run under torchrun needs first, done once in a process without the others: report and amplifier.

Ultralytics' trainers and validators speak to the other processes wherever a rank is set, so the training of the
amplifier and the look at the teacher cannot run inside rank 0 (8.4.190).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ds2d2_yolo.errors import DS2D2Error

# what torchrun sets
RANKS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE", "MASTER_ADDR",
         "MASTER_PORT")  # fmt: skip
PREFIXES = ("ROLE_", "TORCHELASTIC_", "TORCH_NCCL_")


def open_alone(task: str, keys: Mapping[str, Any]) -> dict[str, Any]:
    """Report on a run and obtain its amplifier in a process of its own, whose output goes to this one's.

    Args:
        task (str): 'detect' or 'obb'.
        keys (Mapping[str, Any]): Settings of the run, ours and Ultralytics', with one device.

    Returns:
        (dict[str, Any]): `files`, the report's by name, and `amplifier`, a path or None.

    Raises:
        DS2D2Error: If that process failed; it said itself why.
    """
    with tempfile.TemporaryDirectory() as folder:
        asked, answer = Path(folder, "asked.json"), Path(folder, "answer.json")
        asked.write_text(json.dumps({"task": task, "keys": dict(keys)}), encoding="utf-8")
        outer = {k: v for k, v in os.environ.items() if k not in RANKS and not k.startswith(PREFIXES)}
        command = [sys.executable, "-m", "ds2d2_yolo.bridge.training.prepare_worker", str(asked), str(answer)]
        if subprocess.run(command, env=outer, check=False).returncode or not answer.is_file():
            raise DS2D2Error("the report or the amplifier's training failed, see above: the run has not begun")
        found: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
        return found
