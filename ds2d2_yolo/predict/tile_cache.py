"""What a run has found so far, kept row by row of tiles, so that the same command goes on after a kill."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from ds2d2_yolo.predict.merging import Floats, Ints
from ds2d2_yolo.utils.atomic_files import write_json, write_whole

FOLDER, PLAN = ".parts", "plan.json"


def plan_of(model: str, images: list[Path], settings: dict[str, Any]) -> dict[str, Any]:
    """Return what decides the detections of a run: the same plan goes on, another one starts anew.

    Args:
        model (str): Model file or folder.
        images (list[Path]): Images.
        settings (dict[str, Any]): Options of tiles and of Ultralytics.

    Returns:
        (dict[str, Any]): Plain values.
    """
    files = [_stamp(Path(model)), *(_stamp(p) for p in images)]
    digest = hashlib.sha256(json.dumps(files).encode()).hexdigest()
    plan: dict[str, Any] = json.loads(json.dumps({"files": digest, "settings": settings}, default=str, sort_keys=True))
    return plan


def _stamp(path: Path) -> list[Any]:
    """Return what changes when a file does."""
    found = path.resolve()
    return [str(found), found.stat().st_size, found.stat().st_mtime_ns] if found.exists() else [str(path)]


class Parts:
    """Detections of rows of tiles in a run's folder, each row written whole or not at all."""

    def __init__(self, run: Path, plan: dict[str, Any]) -> None:
        """Begin, or go on where the folder holds the same plan."""
        self._folder = run / FOLDER
        if not goes_on(run, plan):
            shutil.rmtree(self._folder, ignore_errors=True)
            write_json(self._folder / PLAN, plan)

    def load(self, image: int, row: int) -> tuple[Floats, Ints, int] | None:
        """Return a finished row: detections (N, 7), the tile of each, empty tiles; None if it is not there."""
        try:
            with np.load(self._path(image, row)) as found:
                return found["rows"], found["tile"], int(found["empty"])
        except FileNotFoundError:
            return None

    def save(self, image: int, row: int, rows: Floats, tile: Ints, empty: int) -> None:
        """Keep a finished row."""
        buffer = io.BytesIO()
        np.savez(buffer, rows=rows, tile=tile, empty=empty)
        write_whole(self._path(image, row), buffer.getvalue())

    def remove(self) -> None:
        """Remove everything: the run is finished."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, image: int, row: int) -> Path:
        """Return the file of a row."""
        return self._folder / f"{image:06d}-{row:06d}.npz"


def goes_on(run: Path, plan: dict[str, Any]) -> bool:
    """Return whether a folder holds an unfinished run of this plan."""
    try:
        return bool(json.loads((run / FOLDER / PLAN).read_text(encoding="utf-8")) == plan)
    except (OSError, ValueError):
        return False
