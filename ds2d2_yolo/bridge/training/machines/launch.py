"""Identity of a torchrun launch, which its run remembers: after a crash, torchrun restarts the same command."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import psutil  # type: ignore[import-untyped,unused-ignore]  # comes with Ultralytics
from ultralytics.utils import RANK

from ds2d2_yolo.utils.atomic_files import write_atomically

LAUNCH_FILE = "launch.txt"


def launch_name() -> str | None:
    """Return the name of the torchrun process that started this one, None where torchrun did not.

    It stays the same over torchrun's restarts: host, number of the process, its start in seconds since 1970.
    """
    if RANK < 0 or "TORCHELASTIC_RESTART_COUNT" not in os.environ:
        return None
    agent = psutil.Process(os.getppid())
    return f"{socket.gethostname()} {agent.pid} {agent.create_time():.2f}"


def restarted() -> bool:
    """Return whether torchrun restarted the processes of this machine. The first machine may not count a restart."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def mark_folder(folder: Path) -> None:
    """Write the name of the launch into the folder of its run.

    Args:
        folder (Path): The run's folder.
    """
    if name := launch_name():
        write_atomically(folder / LAUNCH_FILE, f"{name}\n")


def is_marked(folder: Path, name: str) -> bool:
    """Return whether a folder is that of a launch's run.

    Args:
        folder (Path): A run's folder.
        name (str): Name of the launch.

    Returns:
        (bool): Whether `mark_folder` wrote this name.
    """
    file = folder / LAUNCH_FILE
    return file.is_file() and file.read_text(encoding="utf-8").strip() == name
