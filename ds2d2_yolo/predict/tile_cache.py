"""A cache of detections per row of tiles, so that the same command continues after a kill."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ds2d2_yolo.predict.rasters.georeference import pam_file
from ds2d2_yolo.utils.atomic_files import write_atomically, write_json
from ds2d2_yolo.utils.detections import Detections, Ints

FOLDER, PLAN = ".parts", "plan.json"


def plan_of(model: str, images: list[Path], settings: dict[str, Any]) -> dict[str, Any]:
    """Return all inputs that determine the detections of a run: a run continues only with an equal plan.

    Args:
        model (str): Model file or folder.
        images (list[Path]): Images.
        settings (dict[str, Any]): Options of tiles and of Ultralytics.

    Returns:
        (dict[str, Any]): Plain values.
    """
    sidecars = [p for p in map(pam_file, images) if p.is_file()]  # nodata changes which tiles are empty
    files = [_stamp(p) for p in (Path(model), *images, *sidecars)]
    digest = hashlib.sha256(json.dumps(files).encode()).hexdigest()
    plan: dict[str, Any] = json.loads(json.dumps({"files": digest, "settings": settings}, default=str, sort_keys=True))
    return plan


def _stamp(path: Path) -> list[Any]:
    """Return path, size and modification time of a file."""
    file = path.resolve()
    return [str(file), file.stat().st_size, file.stat().st_mtime_ns] if file.exists() else [str(path)]


@dataclass(frozen=True, eq=False)
class TileRow:
    """The detections of one row of tiles.

    Attributes:
        detections (Detections): Detections (N) in pixels of the scene.
        tile (np.ndarray): Tile index of each detection (N,).
        empty (int): Number of tiles without data.
    """

    detections: Detections
    tile: Ints
    empty: int


class TileCache:
    """Detections of rows of tiles in a run's folder; each row is written atomically."""

    def __init__(self, run: Path, plan: dict[str, Any], oriented: bool) -> None:
        """Open the cache of an unfinished run with the same plan, or start an empty one."""
        self._folder, self._oriented = run / FOLDER, oriented
        if not is_unfinished(run, plan):
            shutil.rmtree(self._folder, ignore_errors=True)
            write_json(self._folder / PLAN, plan)

    def load(self, image: int, row: int) -> TileRow | None:
        """Return a finished row, None if it is not in the cache.

        Args:
            image (int): Index of the image.
            row (int): Index of the row of tiles.

        Returns:
            (TileRow | None): The row.
        """
        try:
            with np.load(self._path(image, row)) as arrays:
                detections = Detections.from_rows(arrays["rows"], self._oriented)
                return TileRow(detections, arrays["tile"], int(arrays["empty"]))
        except FileNotFoundError:
            return None

    def save(self, image: int, row: int, content: TileRow) -> None:
        """Save a finished row.

        Args:
            image (int): Index of the image.
            row (int): Index of the row of tiles.
            content (TileRow): The row.
        """
        buffer = io.BytesIO()
        np.savez(buffer, rows=content.detections.rows, tile=content.tile, empty=content.empty)
        write_atomically(self._path(image, row), buffer.getvalue())

    def remove(self) -> None:
        """Remove the cache of a finished run."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, image: int, row: int) -> Path:
        """Return the file of a row."""
        return self._folder / f"{image:06d}-{row:06d}.npz"


def is_unfinished(run: Path, plan: dict[str, Any]) -> bool:
    """Return whether a folder holds an unfinished run of this plan.

    Args:
        run (Path): Folder of a run.
        plan (dict[str, Any]): From `plan_of`.

    Returns:
        (bool): Whether its cache belongs to an equal plan.
    """
    try:
        return bool(json.loads((run / FOLDER / PLAN).read_text(encoding="utf-8")) == plan)
    except (OSError, ValueError):
        return False
