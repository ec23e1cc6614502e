"""Which unlabelled images a run takes: broken images and duplicates are left out and named."""

from __future__ import annotations

import hashlib
from argparse import Namespace
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

from PIL import Image

from ds2d2_yolo.bridge.data.data_warnings import HEADERS, image_fault
from ds2d2_yolo.bridge.data.image_checks import READERS, refuse_other_bands
from ds2d2_yolo.bridge.data.images import decode_image, list_images
from ds2d2_yolo.bridge.data.label_checks import SPLITS
from ds2d2_yolo.bridge.data.unlabelled.sources import list_unlabelled, training_images
from ds2d2_yolo.errors import BadUseError

NAMED = 5  # left-out images that a warning names
FIRST_BYTES = 1 << 16  # of files of equal size that are compared before their whole contents


@dataclass(frozen=True)
class UnlabelledImages:
    """The unlabelled images of a run.

    Attributes:
        images (tuple[Path, ...]): Those that the run takes, sorted by path.
        broken (tuple[tuple[Path, str], ...]): Images that cannot be read, each with the reason.
        duplicates (tuple[tuple[Path, str], ...]): Images with the content of another one, each with that image.
    """

    images: tuple[Path, ...]
    broken: tuple[tuple[Path, str], ...] = ()
    duplicates: tuple[tuple[Path, str], ...] = ()

    @property
    def sha256(self) -> str:
        """(str): Hash of names and sizes of the images in their order, as of those of a split (see `data_hash`)."""
        digest = hashlib.sha256()
        for image in self.images:
            digest.update(f"{image.name} {image.stat().st_size}".encode())
        return digest.hexdigest()

    @property
    def warnings(self) -> list[str]:
        """(list[str]): One line for each kind of image that is left out."""
        total = len(self.images) + len(self.broken) + len(self.duplicates)
        lines = []
        for left_out, kind in ((self.broken, "cannot be read"), (self.duplicates, "are duplicates")):
            if left_out:
                named = "; ".join(f"{image}: {reason}" for image, reason in left_out[:NAMED])
                more = f"; and {len(left_out) - NAMED} more" if len(left_out) > NAMED else ""
                lines.append(f"{len(left_out)} of the {total} unlabelled images {kind} and are left out: {named}{more}")
        return lines


def select_unlabelled(sources: str | list[str], data: Mapping[str, Any], args: Namespace) -> UnlabelledImages:
    """List and check the unlabelled images of a run.

    An image whose file equals, byte for byte, one of the labelled images, of the validation split or of the unlabelled
    images before it is a duplicate. Only files of equal size and equal first bytes are read whole for that.

    Args:
        sources (str | list[str]): From `sources.resolve_sources`.
        data (Mapping[str, Any]): The data set.
        args (Namespace): Ultralytics' settings of the run.

    Returns:
        (UnlabelledImages): The images that are taken, and those that are left out.

    Raises:
        BadUseError: If no image remains, or if the images have other bands than the data YAML says.
    """
    listed = list_unlabelled(sources, data, args)
    known = {"labelled": training_images(data, args)}
    known[SPLITS.get(args.split, args.split)] = list_images(data.get(args.split))
    with ThreadPool(READERS) as pool:
        faults = pool.map(lambda image: _fault(image, int(data["channels"])), listed)
        broken = tuple((image, fault) for image, fault in zip(listed, faults, strict=True) if fault)
        readable = [image for image, fault in zip(listed, faults, strict=True) if not fault]
        images, duplicates = _without_duplicates(readable, known, pool)
    selected = UnlabelledImages(tuple(images), broken, tuple(duplicates))
    if not images:
        raise BadUseError(f"unlabelled= leaves no image: {'; '.join(selected.warnings)}")
    refuse_other_bands(images, int(data["channels"]), "unlabelled")
    return selected


def _fault(image: Path, channels: int) -> str | None:
    """Return why an image cannot be read, None if it can.

    The header decides, and the check sums of a PNG; an image whose header does not fit its suffix is decoded.
    """
    if not image.is_file():
        return "it does not exist"
    if (fault := image_fault(image)) is not None:
        return fault
    try:
        with HEADERS[image.suffix.lower()](image) as opened:
            return _checksum_fault(opened)
    except (KeyError, SyntaxError, ValueError):
        return "it is no image that can be read" if decode_image(image, channels) is None else None


def _checksum_fault(image: Image.Image) -> str | None:
    """Return why an opened image is damaged, as far as Pillow finds it without decoding."""
    try:
        image.verify()
    except Exception as e:  # damaged files raise errors of many types
        return f"it is cut off or damaged: {(str(e).splitlines() or [type(e).__name__])[0]}"
    return None


def _without_duplicates(
    images: Sequence[Path], known: Mapping[str, Sequence[Path]], pool: ThreadPool
) -> tuple[list[Path], list[tuple[Path, str]]]:
    """Return the images with contents of their own, and the duplicates with what they equal."""
    others = [(image, kind) for kind, listed in known.items() for image in listed if image.is_file()]
    contents = _contents(images, [image for image, _ in others], pool)
    origin: dict[str, str] = {}
    for image, kind in others:
        if image in contents:
            origin.setdefault(contents[image], f"the {kind} image {image}")
    unique: list[Path] = []
    duplicates: list[tuple[Path, str]] = []
    for image in images:
        content = contents.get(image, "")
        if content in origin:
            duplicates.append((image, f"it equals {origin[content]}"))
            continue
        unique.append(image)
        if content:
            origin[content] = f"the unlabelled image {image}"
    return unique, duplicates


def _contents(images: Sequence[Path], others: Sequence[Path], pool: ThreadPool) -> dict[Path, str]:
    """Return the hashes of the files that may equal another one: of equal size, and of equal first bytes."""
    listed = list(dict.fromkeys([*images, *others]))
    keys: dict[Path, Any] = dict(zip(listed, pool.map(lambda image: image.stat().st_size, listed), strict=True))
    for limit in (FIRST_BYTES, None):
        counts = Counter(keys[image] for image in [*images, *others] if image in keys)  # one image may stand in both
        image_keys = {keys[image] for image in images if image in keys}
        listed = [image for image, key in keys.items() if counts[key] > 1 and key in image_keys]
        digests = pool.starmap(_digest, [(image, limit) for image in listed])
        keys = {image: (keys[image], digest) for image, digest in zip(listed, digests, strict=True)}
    return {image: digest for image, (_, digest) in keys.items()}


def _digest(image: Path, limit: int | None) -> str:
    """Return the hash of a file, or of its first bytes."""
    digest = hashlib.sha256()
    with image.open("rb") as file:
        if limit is not None:
            digest.update(file.read(limit))
            return digest.hexdigest()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
