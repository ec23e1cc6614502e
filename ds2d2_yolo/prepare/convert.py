"""One published image turned into images and labels of YOLO's layout."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ds2d2_yolo.bridge.data.dota_tiles import UnreadableImageError, image_size, objects_in, save_tiles, windows_of
from ds2d2_yolo.prepare.boxes import class_key, fit, label_line, sort_out
from ds2d2_yolo.prepare.options import PrepareOptions
from ds2d2_yolo.prepare.output_folder import Store
from ds2d2_yolo.prepare.records import Annotation, Box, BrokenFileError, Corners, Item, Layout
from ds2d2_yolo.prepare.result import Entry
from ds2d2_yolo.prepare.source_folder import check_inside

Fitted = list[tuple[Box, int, Corners]]  # box, class index, corners inside the image


@dataclass(frozen=True)
class Maker:
    """Makes the images of one data set.

    Attributes:
        layout (Layout): Where it is read from.
        store (Store): Where it is written to.
        options (PrepareOptions): Options of the command.
        classes (tuple[str, ...]): Class names, in order.
        tiled (bool): Whether images are cut into tiles.
    """

    layout: Layout
    store: Store
    options: PrepareOptions
    classes: tuple[str, ...]
    tiled: bool

    def make(self, item: Item) -> Entry:
        """Write the images and labels of one published image.

        Args:
            item (Item): The image.

        Returns:
            (Entry): Its line for the journal; of one that cannot be used, why.

        Raises:
            OSError: If something cannot be written.
        """
        stamp = stamp_of(item)
        try:
            if item.wrong or item.image is None:
                raise BrokenFileError(item.wrong)
            with _naming(item.image):
                check_inside(item.image, self.layout.root)
                width, height = image_size(item.image)
            annotation = self._annotation(item, width, height)
            boxes, dropped = self._sort_out(annotation, width, height)
            with self.store.part() as part, _naming(item.image):
                write = self._tiles if self.tiled else self._whole
                files, kept, copies = write(item, item.image, (width, height), boxes, part)
                # labels first: an image that a kill leaves without its journal line is not one without labels
                self.store.place(dict(sorted(files.items(), reverse=True)))
        except BrokenFileError as e:
            return Entry(item.split, item.name, stamp, broken=str(e))
        gone = [(box, "cut by the border of every tile") for i, (box, _, _) in enumerate(boxes) if i not in kept]
        lost = [[box.place, box.name, why] for box, why in [*dropped, *gone]]
        return Entry(item.split, item.name, stamp, len(annotation.boxes), len(kept), copies, lost, sorted(files))

    def _annotation(self, item: Item, width: int, height: int) -> Annotation:
        """Return the objects of an image, in pixels of the image as it is."""
        if item.annotation is None:
            return Annotation([])
        with _naming(item.annotation):
            found = self.layout.read(check_inside(item.annotation, self.layout.root), width, height)
            if found.size not in (None, (width, height)):
                theirs = "{} x {}".format(*found.size)
                raise BrokenFileError(f"is for an image of {theirs} px, which has {width} x {height}")
        return found

    def _sort_out(self, annotation: Annotation, width: int, height: int) -> tuple[Fitted, list[tuple[Box, str]]]:
        """Return the boxes that have a class and a place in the image, and the others with the reason."""
        indices = {class_key(name): i for i, name in enumerate(self.classes)}
        drop = self.options.difficult == "drop"
        named, dropped = sort_out(annotation.boxes, indices, self.layout.without_class, drop)
        kept: Fitted = []
        for box, index in named:
            place = fit(box.corners, width, height, self.layout.oriented)
            if isinstance(place, str):
                dropped.append((box, place))
            else:
                kept.append((box, index, place))
        return kept, dropped

    def _whole(
        self, item: Item, image: Path, size: tuple[int, int], boxes: Fitted, part: Path
    ) -> tuple[dict[str, Path], set[int], int]:
        """Link or copy an image and write its labels."""
        placed = part / f"{item.name}{image.suffix.lower()}"
        link_or_copy(image, placed, self.options.images == "link")
        files = {f"images/{item.split}/{placed.name}": placed}
        lines = [label_line(index, corners, size[0], size[1], self.layout.oriented) for _, index, corners in boxes]
        self._write_labels(item, item.name, lines, part, files)
        return files, set(range(len(boxes))), len(lines)

    def _tiles(
        self, item: Item, image: Path, size: tuple[int, int], boxes: Fitted, part: Path
    ) -> tuple[dict[str, Path], set[int], int]:
        """Cut an image into tiles and write the labels of each."""
        windows = windows_of(*size, *self.options.windows)
        corners = np.array([box.corners for box, _, _ in boxes]).reshape(-1, 4, 2)
        inside = objects_in(corners, *size, windows, self.options.iof)
        kept: set[int] = set()
        lines: dict[int, list[str]] = {}
        for number, (window, objects) in enumerate(zip(windows, inside, strict=True)):
            start, end = window[:2], np.minimum(window[2:], size)
            w, h = map(float, end - start)
            fitted = [(i, fit(corners[i] - start, w, h, self.layout.oriented)) for i in objects]
            found = [(i, place) for i, place in fitted if not isinstance(place, str)]
            kept.update(i for i, _ in found)
            if found or self.options.background or item.split == "test":
                lines[number] = [label_line(boxes[i][1], p, w, h, self.layout.oriented) for i, p in found]
        tiles = save_tiles(image, windows[list(lines)], part)
        files = {f"images/{item.split}/{tile.name}": tile for tile in tiles}
        for tile, of_tile in zip(tiles, lines.values(), strict=True):
            self._write_labels(item, tile.stem, of_tile, part, files)
        return files, kept, sum(map(len, lines.values()))

    def _write_labels(self, item: Item, name: str, lines: Iterable[str], part: Path, files: dict[str, Path]) -> None:
        """Write a label file, unless it would be empty: Ultralytics takes an image without one for background."""
        if text := "".join(f"{line}\n" for line in lines):
            file = part / f"{name}.txt"
            file.write_text(text, encoding="utf-8", newline="\n")
            files[f"labels/{item.split}/{file.name}"] = file


def stamp_of(item: Item) -> list[int]:
    """Return bytes and time of change, in ns, of image and annotation; zeros for what is not there."""
    stamp = []
    for file in (item.image, item.annotation):
        try:
            state = file.stat() if file else None
        except OSError:
            state = None
        stamp += [state.st_size, state.st_mtime_ns] if state else [0, 0]
    return stamp


def link_or_copy(source: Path, target: Path, link: bool) -> None:
    """Put a file at another place.

    A hard link needs no space, and its bytes are the source's; it is what nobody can delete the source under. Where the
    file system cannot, or `link` is off, the file is copied.

    Args:
        source (Path): The file.
        target (Path): Its new place.
        link (bool): Whether a hard link will do.
    """
    if link:
        try:
            os.link(source.resolve(), target)  # a link to a link would be one too
            return
        except OSError:  # another file system, or one without links
            target.unlink(missing_ok=True)
    shutil.copyfile(source, target)


@contextmanager
def _naming(file: Path) -> Iterator[None]:
    """Put the name of a file before what is wrong with it."""
    try:
        yield
    except (BrokenFileError, UnreadableImageError) as e:
        raise BrokenFileError(f"{file.name} {e}") from e
