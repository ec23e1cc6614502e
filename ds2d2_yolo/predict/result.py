"""The result of a prediction and its printed summary."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ds2d2_yolo.predict.merging import MergeResult
from ds2d2_yolo.predict.writing import TASKS, ImageDetections, classes_without_detections

if TYPE_CHECKING:
    from ds2d2_yolo.bridge.inference.tile_detector import Results

LISTED = 20  # images and files that the summary lists


@dataclass(frozen=True)
class ImageSummary:
    """The detections of one image and the counts of its tiles.

    Attributes:
        image (ImageDetections): The detections.
        tiles (int): Number of tiles, 0 for an image that was not cut.
        empty (int): Number of tiles without data; the model did not see them.
        merged (MergeResult | None): Counts of the merge, without its detections.
    """

    image: ImageDetections
    tiles: int = 0
    empty: int = 0
    merged: MergeResult | None = None


@dataclass(frozen=True)
class Prediction:
    """The result of `predict`; `str()` is its summary.

    Attributes:
        results (list[Results]): Ultralytics' results in pixels of the complete images, without the images.
        images (list[ImageSummary]): Detections and counts of each image.
        names (dict[int, str]): Class names.
        folder (Path | None): Folder of the run, None if nothing was written.
        files (list[Path]): Files and folders that were written.
    """

    results: list[Results]
    images: list[ImageSummary]
    names: dict[int, str]
    folder: Path | None
    files: list[Path]

    def __str__(self) -> str:
        """Return counts by image and class, and the files."""
        lines = [_line(image) for image in self.images[:LISTED]]
        if len(self.images) > LISTED:
            lines.append(f"... and {len(self.images) - LISTED} images more")
        counts = Counter(k for image in self.images for k in image.image.detections.classes.tolist())
        lines.append(", ".join(f"{n} {self.names[k]}" for k, n in counts.most_common()) or "nothing found")
        if self.folder is not None and self.files:
            names = sorted({p.relative_to(self.folder).as_posix() for p in self.files})
            listed = ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")
            lines.append(f"{self.folder}: {listed}")
            lines += self._placeholders()
        return "\n".join(lines)

    def _placeholders(self) -> list[str]:
        """Return a line about the placeholders in DOTA files, none if there are none."""
        tasks = [task for task in TASKS if any(p.name == task for p in self.files)]
        missing = [self.names[k] for k in classes_without_detections([s.image for s in self.images], self.names)]
        if not tasks or not missing:
            return []
        names = ", ".join(missing[:LISTED]) + (f" and {len(missing) - LISTED} more" if len(missing) > LISTED else "")
        return [f"{' and '.join(tasks)}: no {names}; a placeholder of score 0 stands for each, since DOTA's evaluation "
                "fails on an empty file"]  # fmt: skip


def _line(summary: ImageSummary) -> str:
    """Return one image's line of the summary."""
    image, merged = summary.image, summary.merged
    line = f"{image.path}: {image.size[0]} x {image.size[1]} px, {len(image.detections)} objects"
    if merged is None:
        return line
    seams = f"{merged.repeated} repeated, {merged.cut} cut and {merged.joined} joined ones merged at seams"
    return f"{line}; {summary.tiles} tiles, {summary.empty} of them empty; {seams}"
