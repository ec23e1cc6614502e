"""Looking into folders of other people: bounded reads, nothing outside the source, missing pairs by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ds2d2_yolo.errors import BadUseError
from ds2d2_yolo.prepare.options import SPLITS
from ds2d2_yolo.prepare.records import BrokenFileError, Item

IMAGES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
LARGEST = 32 * 2**20  # bytes of a text file; the largest published annotation has about one MB


def read_bytes(file: Path) -> bytes:
    """Return what an annotation or list holds.

    Raises:
        BrokenFileError: If it cannot be read, or is far larger than any annotation.
    """
    try:
        with file.open("rb") as opened:
            content = opened.read(LARGEST + 1)
    except OSError as e:
        raise BrokenFileError(f"cannot be read: {e.strerror}") from e
    if len(content) > LARGEST:
        raise BrokenFileError(f"has more than {LARGEST >> 20} MB, which no annotation has")
    return content


def read_lines(file: Path) -> list[str]:
    """Return the lines of a text file, in UTF-8 with or without a byte-order mark, with any line ends.

    Raises:
        BrokenFileError: If it cannot be read, or is no UTF-8.
    """
    try:
        return read_bytes(file).decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    except UnicodeDecodeError as e:
        raise BrokenFileError(f"is no UTF-8 text (byte {e.start})") from e


def check_inside(file: Path, root: Path) -> Path:
    """Return where a file really is; refuse one that a link leads out of the source.

    Raises:
        BrokenFileError: If it lies outside `root`, or nowhere.
    """
    try:
        real = file.resolve(strict=True)
    except (OSError, RuntimeError) as e:  # RuntimeError: links in a circle, before Python 3.13
        raise BrokenFileError("is a link that leads nowhere") from e
    if not real.is_relative_to(root.resolve()):
        raise BrokenFileError("is a link that leads out of the source")
    if not real.is_file():
        raise BrokenFileError("is no file")
    return real


def is_plain(name: str) -> bool:
    """Return whether a name from a list can be the name of a file in a folder, and leads nowhere else."""
    return bool(name) and name.isprintable() and name not in (".", "..") and not set(name) & set('/\\:*?"<>|')


def by_stem(folders: Iterable[Path], suffixes: Iterable[str]) -> dict[str, list[Path]]:
    """Return the files of some folders by their names without suffix; hidden ones and pipes are left out."""
    wanted, found = frozenset(suffixes), dict[str, list[Path]]()
    for folder in folders:
        for file in sorted(folder.iterdir()):
            seen = file.suffix.lower() in wanted and not file.name.startswith(".")
            if seen and (file.is_file() or file.is_symlink()):
                found.setdefault(file.stem, []).append(file)
    return found


def holds(folder: Path, suffix: str) -> bool:
    """Return whether a folder directly holds a file of that suffix."""
    return folder.is_dir() and any(f.suffix.lower() == suffix and not f.name.startswith(".") for f in folder.iterdir())


def folders_below(folder: Path, depth: int) -> Iterator[Path]:
    """Yield a folder and those below it, links and folders of images left out."""
    yield folder
    if depth:
        for child in sorted(folder.iterdir()):
            if child.is_dir() and not child.is_symlink() and not child.name.lower().startswith(("images", "jpeg")):
                yield from folders_below(child, depth - 1)


def pair(
    split: str, name: str, images: Mapping[str, list[Path]], annotations: Mapping[str, list[Path]] | None, where: str
) -> Item:
    """Return the item of a name, with what is wrong if image or annotation is missing or there are several.

    Args:
        split (str): Its split.
        name (str): Name of the image without suffix.
        images (Mapping[str, list[Path]]): Images by name.
        annotations (Mapping[str, list[Path]] | None): Annotations by name; None where none are published.
        where (str): Folders of images and annotations, for the message.

    Returns:
        (Item): The item.
    """
    image, annotation = images.get(name, []), (annotations or {}).get(name, [])
    if not is_plain(name):
        return Item(split, name, wrong="its name is no plain file name")
    if not image:
        return Item(split, name, None, wrong=f"no image of this name in {where}")
    if annotations is not None and not annotation:
        return Item(split, name, image[0], wrong=f"no annotation of this name in {where}")
    for files in (image, annotation):
        if len(files) > 1:
            return Item(split, name, wrong=f"several files of this name: {', '.join(f.name for f in files)}")
    return Item(split, name, image[0], annotation[0] if annotation else None)


def wanted_splits(splits: list[str] | None, there: Iterable[str], root: Path, looked_for: str) -> list[str]:
    """Return the splits to prepare, in their usual order.

    Args:
        splits (list[str] | None): Those asked for; None is all that are there.
        there (Iterable[str]): Those found.
        root (Path): The source, for the message.
        looked_for (str): What a split is recognised by, for the message.

    Returns:
        (list[str]): At least one.

    Raises:
        BadUseError: If one that was asked for is missing, or without a wish 'train' or 'val'.
    """
    found = set(there)
    lacking = [s for s in (splits or SPLITS[:2]) if s not in found]
    if lacking:
        raise BadUseError(f"source={root} lacks {' and '.join(lacking)}: looked for {looked_for}")
    return [s for s in SPLITS if s in found and (splits is None or s in splits)]
