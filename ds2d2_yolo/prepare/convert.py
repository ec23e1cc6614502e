"""Conversion of one published image into images and labels of the YOLO layout."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ds2d2_yolo.bridge.data.dota_tiles import image_size, objects_in, save_stretched, save_tiles, windows_of
from ds2d2_yolo.bridge.data.image_format import ImageFormat, UnreadableImageError, deep_format
from ds2d2_yolo.prepare.boxes import assign_classes, class_key, fit, label_line
from ds2d2_yolo.prepare.options import PrepareOptions
from ds2d2_yolo.prepare.output_folder import OutputFolder
from ds2d2_yolo.prepare.records import Annotation, Box, BrokenFileError, Corners, Item, Layout
from ds2d2_yolo.prepare.result import Entry
from ds2d2_yolo.prepare.source_folder import check_inside

Fitted = list[tuple[Box, int, Corners]]  # box, class index, corners inside the image


@dataclass(frozen=True)
class Converted:
    """Files and counts of a converted image.

    Attributes:
        files (dict[str, Path]): New files by their places under `out`.
        written (set[int]): Indices of the boxes that are in at least one file.
        lines (int): Label lines.
    """

    files: dict[str, Path]
    written: set[int]
    lines: int


@dataclass(frozen=True)
class Converter:
    """Converts the images of one data set.

    Attributes:
        layout (Layout): The published data set.
        output (OutputFolder): The folder to write into.
        options (PrepareOptions): Options of the command.
        classes (tuple[str, ...]): Class names, in order.
        tiled (bool): Whether images are cut into tiles.
    """

    layout: Layout
    output: OutputFolder
    options: PrepareOptions
    classes: tuple[str, ...]
    tiled: bool

    def convert(self, item: Item) -> Entry:
        """Write the images and labels of one published image.

        Args:
            item (Item): The image.

        Returns:
            (Entry): Its line for the journal; for an unusable image with the reason.

        Raises:
            OSError: If a file cannot be written.
        """
        stamp = stamp_of(item)
        try:
            if item.error or item.image is None:
                raise BrokenFileError(item.error)
            with _naming(item.image):
                check_inside(item.image, self.layout.root)
                width, height = image_size(item.image)
            annotation = self._annotation(item, width, height)
            boxes, dropped = self._fitting_boxes(annotation, width, height)
            layout = self.stretched_format(item.image)
            with self.output.part() as part, _naming(item.image):
                write = self._write_tiles if self.tiled else self._write_image
                converted = write(item, item.image, (width, height), boxes, part, layout)
                # labels first: a kill may leave an image without its journal line, but not one without its labels
                self.output.place(dict(sorted(converted.files.items(), reverse=True)))
        except BrokenFileError as e:
            return Entry(item.split, item.name, stamp, broken=str(e))
        written, stretched = converted.written, "" if layout is None else str(layout.dtype)
        dropped += [(box, "cut by the border of every tile") for i, (box, _, _) in enumerate(boxes) if i not in written]
        reasons = [[box.place, box.name, reason] for box, reason in dropped]
        counts = len(annotation.boxes), len(written), converted.lines
        return Entry(item.split, item.name, stamp, *counts, reasons, sorted(converted.files), stretched=stretched)

    def stretched_format(self, image: Path) -> ImageFormat | None:
        """Return the layout of an image that is stretched to 8 bits, None for any other.

        Args:
            image (Path): The image.

        Returns:
            (ImageFormat | None): Its layout. Images of several pages are linked: Ultralytics reads pages as channels.
        """
        layout = deep_format(image)
        return None if layout is None or (layout.pages and not self.tiled) else layout

    def _annotation(self, item: Item, width: int, height: int) -> Annotation:
        """Return the objects of an image, in pixels of the source image."""
        if item.annotation is None:
            return Annotation([])
        with _naming(item.annotation):
            annotation = self.layout.read(check_inside(item.annotation, self.layout.root), width, height)
            if annotation.size not in (None, (width, height)):
                size = "{} x {}".format(*annotation.size)
                raise BrokenFileError(f"is for an image of {size} px, which has {width} x {height}")
        return annotation

    def _fitting_boxes(self, annotation: Annotation, width: int, height: int) -> tuple[Fitted, list[tuple[Box, str]]]:
        """Return the boxes with a class that lie in the image, and the dropped ones with the reason."""
        indices = {class_key(name): i for i, name in enumerate(self.classes)}
        drop = self.options.difficult == "drop"
        named, dropped = assign_classes(annotation.boxes, indices, self.layout.without_class, drop)
        fitted: Fitted = []
        for box, index in named:
            corners = fit(box.corners, width, height, self.layout.oriented)
            if isinstance(corners, str):
                dropped.append((box, corners))
            else:
                fitted.append((box, index, corners))
        return fitted, dropped

    def _write_image(
        self, item: Item, image: Path, size: tuple[int, int], boxes: Fitted, part: Path, layout: ImageFormat | None
    ) -> Converted:
        """Link, copy or stretch an image and write its labels."""
        placed = part / f"{item.name}{image.suffix.lower() if layout is None else '.png'}"
        if layout is None:
            link_or_copy(image, placed, self.options.images == "link")
        else:
            save_stretched(image, placed, layout)
        files = {f"images/{item.split}/{placed.name}": placed}
        lines = [label_line(index, corners, size[0], size[1], self.layout.oriented) for _, index, corners in boxes]
        self._write_labels(item, item.name, lines, part, files)
        return Converted(files, set(range(len(boxes))), len(lines))

    def _write_tiles(
        self, item: Item, image: Path, size: tuple[int, int], boxes: Fitted, part: Path, layout: ImageFormat | None
    ) -> Converted:
        """Cut an image into tiles and write the labels of each tile."""
        windows = windows_of(*size, *self.options.windows)
        corners = np.array([box.corners for box, _, _ in boxes]).reshape(-1, 4, 2)
        inside = objects_in(corners, *size, windows, self.options.iof)
        written: set[int] = set()
        lines: dict[int, list[str]] = {}
        for number, (window, objects) in enumerate(zip(windows, inside, strict=True)):
            start, end = window[:2], np.minimum(window[2:], size)
            w, h = map(float, end - start)
            fitted = [(i, fit(corners[i] - start, w, h, self.layout.oriented)) for i in objects]
            visible = [(i, place) for i, place in fitted if not isinstance(place, str)]
            written.update(i for i, _ in visible)
            if visible or self.options.background or item.split == "test":
                lines[number] = [label_line(boxes[i][1], p, w, h, self.layout.oriented) for i, p in visible]
        tiles = save_tiles(image, windows[list(lines)], part, layout)
        files = {f"images/{item.split}/{tile.name}": tile for tile in tiles}
        for tile, tile_lines in zip(tiles, lines.values(), strict=True):
            self._write_labels(item, tile.stem, tile_lines, part, files)
        return Converted(files, written, sum(map(len, lines.values())))

    def _write_labels(self, item: Item, name: str, lines: Iterable[str], part: Path, files: dict[str, Path]) -> None:
        """Write a label file unless it would be empty: to Ultralytics an image without a label file is background."""
        if text := "".join(f"{line}\n" for line in lines):
            file = part / f"{name}.txt"
            file.write_text(text, encoding="utf-8", newline="\n")
            files[f"labels/{item.split}/{file.name}"] = file


def stamp_of(item: Item) -> list[int]:
    """Return size in bytes and modification time in ns of image and annotation; zeros for missing files.

    Args:
        item (Item): An image of the source.

    Returns:
        (list[int]): Size and time of the image, size and time of the annotation.
    """
    stamp = []
    for file in (item.image, item.annotation):
        try:
            state = file.stat() if file else None
        except OSError:
            state = None
        stamp += [state.st_size, state.st_mtime_ns] if state else [0, 0]
    return stamp


def link_or_copy(source: Path, target: Path, link: bool) -> None:
    """Hard-link or copy a file.

    A hard link needs no space, shares its bytes with the source, and outlives a deletion of the source. The file is
    copied if the file system has no hard links, or `link` is off.

    Args:
        source (Path): The file.
        target (Path): The new path.
        link (bool): Whether to try a hard link first.
    """
    if link:
        try:
            os.link(source.resolve(), target)  # a hard link to a symbolic link would be symbolic too
            return
        except OSError:  # another file system, or one without links
            target.unlink(missing_ok=True)
    shutil.copyfile(source, target)


@contextmanager
def _naming(file: Path) -> Iterator[None]:
    """Prefix the errors of a file with its name."""
    try:
        yield
    except (BrokenFileError, UnreadableImageError) as e:
        raise BrokenFileError(f"{file.name} {e}") from e
