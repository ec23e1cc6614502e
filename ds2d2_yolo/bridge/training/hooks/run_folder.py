"""The folder of a run as the processes of a distributed training see it, on machines with and without a common disk."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from pathlib import Path
from typing import Any

from torch import distributed as dist

from ds2d2_yolo.bridge.upstream.distributed import broadcast_from_rank0, distributed, file_from_rank0, true_in_all

NAMES = ("save_dir", "wdir", "last", "best", "csv")


class RunFolder:
    """Gives all processes the run's folder of rank 0, or a temporary one where that is not to be seen.

    Ultralytics (8.4.190) writes in rank 0 only, but reads best.pt and last.pt in every process, and makes the folder in
    every process.

    Args:
        trainer (Any): The trainer whose paths are set.

    Attributes:
        everywhere (bool): Whether all processes see the folder of rank 0.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self.everywhere = True

    def share(self) -> None:
        """Take rank 0's folder in all processes that see it. All call it, after rank 0 has made the folder."""
        trainer = self._trainer
        paths = broadcast_from_rank0([getattr(trainer, name) for name in NAMES])
        if not self._is_seen(paths[0]):
            self._temporary = tempfile.TemporaryDirectory(prefix="ds2d2-rank-", ignore_cleanup_errors=True)
            folder = Path(self._temporary.name)
            paths = [folder / path.relative_to(paths[0]) for path in paths]
            paths[1].mkdir()
        for name, path in zip(NAMES, paths, strict=True):
            setattr(trainer, name, path)
        trainer.args.save_dir, trainer.args.name = str(trainer.save_dir), trainer.save_dir.name

    def deliver(self, name: str) -> None:
        """Copy a checkpoint of rank 0 to the processes that do not see it. All processes call it.

        Args:
            name (str): The trainer's attribute with its path, 'last' or 'best'.
        """
        if self.everywhere:
            return
        path = getattr(self._trainer, name)
        (exists,) = broadcast_from_rank0([path.is_file()])
        if not exists:
            return
        with file_from_rank0(path) as file:
            if self._temporary is not None:
                shutil.copyfile(file, path)

    def close(self) -> None:
        """Remove the temporary folder."""
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary = None

    def _is_seen(self, folder: Path) -> bool:
        """Return whether this process sees a new file of rank 0 in a folder; a copy of the folder does not have it."""
        if not distributed():
            return True
        file = folder / f".seen-{uuid.uuid4().hex}"
        if dist.get_rank() == 0:
            file.touch()
        (file,) = broadcast_from_rank0([file])
        seen = file.is_file()
        self.everywhere = true_in_all(seen)
        if dist.get_rank() == 0:
            file.unlink()
        return seen
