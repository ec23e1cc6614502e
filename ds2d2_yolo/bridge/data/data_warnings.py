"""Warnings about images and labels of a data set that can be used as a whole: what Ultralytics leaves out or mixes up.

Ultralytics (8.4.190) leaves out an image with an unusable label file, takes an image without a label file for
background, and gives images of equal names and different suffixes one label file. The first is a line of its log, the
others are silent.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile
from ultralytics.data.utils import get_split_fraction, verify_image_label

from ds2d2_yolo.bridge.data.image_checks import PLUGINS, READERS
from ds2d2_yolo.bridge.data.images import label_paths, list_images, take_fraction
from ds2d2_yolo.bridge.data.label_checks import SPLITS
from ds2d2_yolo.bridge.data.tiff import explain_unreadable_tiff

MIN_SIDE = 10  # pixels; Ultralytics leaves out smaller images
MAX_REASON = 200  # characters of Ultralytics' reason that are shown
JPEG_END = b"\xff\xd9"
HEADERS = {**PLUGINS, ".tif": TiffImageFile, ".tiff": TiffImageFile}


def data_warnings(data: Mapping[str, Any], split: str = "val", fraction: Any = 1.0) -> list[str]:
    """Return warnings about the images that a training takes.

    Args:
        data (Mapping[str, Any]): Data set as `load_data` returns it.
        split (str): Split that the run validates on.
        fraction (Any): Ultralytics' `fraction=`.

    Returns:
        (list[str]): One line each, training before validation.
    """
    warnings = []
    for name in dict.fromkeys(("train", split)):
        images = take_fraction(list_images(data.get(name)), get_split_fraction(fraction, name))
        warnings += unusable_warnings(images, SPLITS.get(name, name), data["nc"], bool(data.get("single_cls")))
        warnings += label_file_warnings(images, SPLITS.get(name, name))
    return warnings


def unusable_warnings(images: Sequence[Path], split: str, classes: int, single_cls: bool) -> list[str]:
    """Return a warning if Ultralytics leaves out images of a split.

    Label files are judged by Ultralytics' own rules. Of the images only the headers are read, and the pixels of JPEG
    files without an end: other damage shows when the training reads them.

    Args:
        images (Sequence[Path]): Images of the split.
        split (str): Name of the split for the message, such as 'training'.
        classes (int): Number of classes of the data set.
        single_cls (bool): Whether the run takes all classes as one.

    Returns:
        (list[str]): At most one line: how many images, the first one and what is wrong with it.
    """
    with tempfile.TemporaryDirectory() as folder, ThreadPool(READERS) as pool:
        sample = Path(folder, "sample.bmp")  # stands for the image where only the labels are judged
        Image.new("L", (MIN_SIDE, MIN_SIDE)).save(sample)
        pairs = zip(images, label_paths(images), strict=True)
        reasons = pool.starmap(
            lambda image, label: image_fault(image) or _label_fault(label, sample, classes, single_cls), pairs
        )
    unusable = [(image, reason) for image, reason in zip(images, reasons, strict=True) if reason]
    if not unusable:
        return []
    image, reason = unusable[0]
    verb = "is" if len(unusable) == 1 else "are"
    return [f"{len(unusable)} of the {len(images)} {split} images {verb} left out, such as {image}: {reason}"]


def label_file_warnings(images: Sequence[Path], split: str) -> list[str]:
    """Return warnings about images that get another image's labels, or none although labels lie beside them.

    Args:
        images (Sequence[Path]): Images of a split.
        split (str): Name of the split for the message, such as 'training'.

    Returns:
        (list[str]): At most two lines.
    """
    labels, warnings = label_paths(images), []
    number = Counter(labels)
    sharing = [(image, label) for image, label in zip(images, labels, strict=True) if number[label] > 1]
    if sharing:
        _, label = sharing[0]
        names = " and ".join(str(image) for image, other in sharing if other == label)
        warnings.append(
            f"{len(sharing)} of the {len(images)} {split} images share a label file, such as {names}: both get the "
            f"objects of {label}, rename one"
        )
    unread = [
        (image, label)
        for image, label in zip(images, labels, strict=True)
        if not label.is_file() and image.with_suffix(".txt").is_file()
    ]
    if unread:
        image, label = unread[0]
        warnings.append(
            f"{len(unread)} of the {len(images)} {split} images count as background, though labels lie beside them, "
            f"such as {image.with_suffix('.txt')}: move it to {label}"
        )
    return warnings


def image_fault(image: Path) -> str | None:
    """Return why Ultralytics leaves an image out, as far as its header tells; None if it tells nothing."""
    if (reason := explain_unreadable_tiff(image)) is not None:
        return reason
    plugin = HEADERS.get(image.suffix.lower())
    if plugin is None:
        return None
    try:
        if not image.stat().st_size:
            return "it is empty"
        with plugin(image) as opened:  # Image.open refuses large images, and installs a reader for unknown ones
            width, height = opened.size
            limit = 2 * (Image.MAX_IMAGE_PIXELS or width * height)
            if width * height > limit:
                return f"it has {width} x {height} px, Ultralytics takes at most {limit:,} px: cut it into tiles"
            if min(width, height) < MIN_SIDE:
                return f"it has {width} x {height} px, Ultralytics takes at least {MIN_SIDE} on each side"
            if plugin is PLUGINS[".jpg"] and not _has_jpeg_end(image):
                opened.load()
    except (SyntaxError, ValueError, FileNotFoundError):  # another format under this name
        return None
    except OSError as e:
        return f"it is cut off or damaged: {_short(str(e))}"
    return None


def _has_jpeg_end(image: Path) -> bool:
    """Return whether a file ends as JPEG files do; Ultralytics decodes and rewrites others."""
    with image.open("rb") as file:
        file.seek(-len(JPEG_END), os.SEEK_END)
        return file.read() == JPEG_END


def _label_fault(label: Path, sample: Path, classes: int, single_cls: bool) -> str | None:
    """Return why Ultralytics leaves out the image of a label file; None if it takes it."""
    result = verify_image_label((str(sample), str(label), "", False, classes, 0, 0, single_cls))
    if result[0] is not None:
        return None
    return f"{label.name}: {_short(str(result[-1]).partition('ignoring corrupt image/label: ')[2])}"


def _short(text: str) -> str:
    """Return the first line of a reason, cut to `MAX_REASON` characters."""
    line = (text.splitlines() or [""])[0]
    return line if len(line) <= MAX_REASON else f"{line[:MAX_REASON]} ..."
