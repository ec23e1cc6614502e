"""The type of an image's values, read from its header without decoding pixels, and what Ultralytics makes of it."""

from __future__ import annotations

import logging
import struct
import warnings
from collections.abc import Sequence
from pathlib import Path

from PIL import TiffImagePlugin

from ds2d2_yolo.errors import BadUseError

IMAGE_WIDTH, BITS_PER_SAMPLE, SAMPLE_FORMAT = 256, 258, 339  # TIFF tags
TIFF_KINDS = {1: "uint", 2: "int", 3: "float", 4: "uint", 5: "complex int", 6: "complex float"}
TIFF_HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
BIG_TIFF = 43  # version of files with 64-bit offsets, whose header is 8 bytes longer
JP2_HEAD = b"\0\0\0\x0cjP  "
HEAD = 4096  # bytes that hold the header of a PNG or JP2

logger = logging.getLogger("ds2d2_yolo")


def sample_type(path: Path) -> str | None:
    """Return the type of a TIFF's, PNG's or JP2's values.

    Args:
        path (Path): Any file.

    Returns:
        (str | None): Such as 'uint8', 'uint16' or 'float32'; None for other formats and unreadable headers.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
        if head[:4] in TIFF_HEADS:
            return _tiff_type(path)
        if head.startswith(b"\x89PNG\r\n\x1a\n"):
            return f"uint{head[24]}"
        if head.startswith(JP2_HEAD):
            bits = head[head.index(b"ihdr") + 14]  # after height, width and the number of components
            return None if bits == 255 else f"{'int' if bits & 0x80 else 'uint'}{(bits & 0x7F) + 1}"
    except (OSError, SyntaxError, ValueError, TypeError, IndexError, KeyError, struct.error):  # Pillow's, of bad tags
        return None
    return None


def check_ultralytics_reads(images: Sequence[Path]) -> None:
    """Refuse images whose values Ultralytics' reading turns into noise, and warn about 16-bit ones.

    Ultralytics divides what OpenCV decodes by 255: float, signed and 32-bit values become nonsense. Of 16-bit values it
    keeps the upper byte, in training as in prediction (8.4.190), so images of 11 or 12 bits become nearly black.

    Args:
        images (Sequence[Path]): Images that Ultralytics is going to read.

    Raises:
        BadUseError: In one line, with the way out.
    """
    types = {path: kind for path in images if (kind := sample_type(path)) is not None}
    bits = {path: int(kind[4:]) if kind.startswith("uint") else None for path, kind in types.items()}
    nonsense = [path for path, n in bits.items() if n is None or n > 16]
    deep = [path for path, n in bits.items() if n is not None and 8 < n <= 16]
    if nonsense:
        raise BadUseError(
            f"{_listed(nonsense)}: {types[nonsense[0]]} values, which Ultralytics cannot read: give slice=, whose "
            f"reading stretches them to 8 bits (stretch=), or convert them: gdal_translate -ot Byte -scale"
        )
    if deep:
        logger.warning(
            f"{_listed(deep)}: {types[deep[0]]} values, of which Ultralytics keeps the upper byte, as in training: "
            f"if little is found, give slice=, whose reading stretches them to 8 bits (stretch=)"
        )


def _listed(paths: Sequence[Path]) -> str:
    """Return the first path, and how many there are more."""
    return f"{paths[0]}" + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")


def _tiff_type(path: Path) -> str | None:
    """Return the type of a TIFF's values, from the tags of its first page."""
    with path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about truncated tags
        head = file.read(8)
        tags = TiffImagePlugin.ImageFileDirectory_v2(head + (file.read(8) if BIG_TIFF in head[2:4] else b""))
        file.seek(tags.next)
        tags.load(file)
        if IMAGE_WIDTH not in tags:
            return None
        bits, kind = tags.get(BITS_PER_SAMPLE, 1), tags.get(SAMPLE_FORMAT, 1)
    bits, kind = (max(v) if isinstance(v, tuple) else v for v in (bits, kind))
    return f"{TIFF_KINDS[kind]}{bits}"
