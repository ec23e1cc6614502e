"""The image files that a source names."""

from __future__ import annotations

import glob
from pathlib import Path

from ds2d2_yolo.errors import BadUseError

SUFFIXES = frozenset(
    (".tif", ".tiff", ".gtiff", ".jp2", ".j2k", ".jpx", ".vrt", ".img", ".ntf", ".nitf",
     ".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif")
)  # fmt: skip


def images_of(source: str) -> list[Path]:
    """Return the images that a source names, sorted.

    Args:
        source (str): An image, a folder (not recursive), a glob pattern, or a .txt file
            with a path per line, relative to the file's folder. Hidden files of folders and patterns are left out.

    Returns:
        (list[Path]): At least one image, without duplicates.

    Raises:
        BadUseError: If there is no image, or a listed file is missing.
    """
    path = Path(source)
    if path.is_dir():
        images = sorted(p for p in path.iterdir() if _is_visible_image(p))
        if not images:
            raise BadUseError(f"source={source} is a folder without images ({', '.join(sorted(SUFFIXES))})")
        return images
    if path.is_file():
        return _listed(path) if path.suffix.lower() == ".txt" else [path]
    if glob.has_magic(source):
        matches = sorted(Path(p) for p in glob.glob(source, recursive=True))
        images = [p for p in matches if _is_visible_image(p)]
        if not images:
            raise BadUseError(f"source={source} matches no image")
        return images
    raise BadUseError(f"source={source} does not exist")


def local_images(source: str) -> list[Path]:
    """Return the images that a source names, none if it names other things that Ultralytics takes (URL, camera).

    Args:
        source (str): Any source that Ultralytics takes.

    Returns:
        (list[Path]): See `images_of`.
    """
    try:
        return images_of(source)
    except BadUseError:
        return []


def _is_visible_image(path: Path) -> bool:
    """Return whether a path is an image file, and not hidden: macOS writes `._a.tif` beside `a.tif` on other disks."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _listed(path: Path) -> list[Path]:
    """Return the images that a text file lists."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as e:
        raise BadUseError(f"source={path} is no text file with a path per line") from e
    images = list(dict.fromkeys(path.parent / line for line in lines if line))
    missing = [p for p in images if not p.is_file()]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise BadUseError(f"source={path} lists {missing[0]}, which does not exist{more}")
    if not images:
        raise BadUseError(f"source={path} lists no image")
    return images
