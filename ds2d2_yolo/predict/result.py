"""What a prediction returns."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ds2d2_yolo.predict.merging import Merged
from ds2d2_yolo.predict.writing import Found

if TYPE_CHECKING:
    from ds2d2_yolo.bridge.inference.tile_detector import Results

LISTED = 20  # images and files that the summary lists


@dataclass(frozen=True)
class ImageCount:
    """What was done with one image.

    Attributes:
        found (Found): Its objects.
        tiles (int): Tiles, 0 for an image that was not cut.
        empty (int): Tiles without data, which the model did not see.
        merged (Merged | None): What became of the tiles' detections.
    """

    found: Found
    tiles: int = 0
    empty: int = 0
    merged: Merged | None = None


@dataclass(frozen=True)
class Predicted:
    """What a prediction found; `str()` is its summary.

    Attributes:
        results (list[Results]): Ultralytics' results in pixels of the whole images, without the images themselves.
        images (list[ImageCount]): What was done with each image.
        names (dict[int, str]): Class names.
        folder (Path | None): Folder of the run, None where nothing was written.
        files (list[Path]): What lies in it.
    """

    results: list[Results]
    images: list[ImageCount]
    names: dict[int, str]
    folder: Path | None
    files: list[Path]

    def __str__(self) -> str:
        """Return counts by image and class, and the files."""
        lines = [_line(image) for image in self.images[:LISTED]]
        if len(self.images) > LISTED:
            lines.append(f"... and {len(self.images) - LISTED} images more")
        counts = Counter(int(k) for image in self.images for k in image.found.rows[:, 6])
        lines.append(", ".join(f"{n} {self.names[k]}" for k, n in counts.most_common()) or "nothing found")
        if self.folder is not None and self.files:
            names = sorted({p.relative_to(self.folder).as_posix() for p in self.files})
            said = ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")
            lines.append(f"{self.folder}: {said}")
        return "\n".join(lines)


def _line(image: ImageCount) -> str:
    """Return one image's line of the summary."""
    found, merged = image.found, image.merged
    line = f"{found.path}: {found.size[0]} x {found.size[1]} px, {len(found.rows)} objects"
    if merged is None:
        return line
    seams = f"{merged.repeated} repeated, {merged.cut} cut and {merged.joined} joined ones merged at seams"
    return f"{line}; {image.tiles} tiles, {image.empty} of them empty; {seams}"
