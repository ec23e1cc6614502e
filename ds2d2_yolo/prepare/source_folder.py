"""Safe reading of source folders: bounded file sizes, no links out of the source, missing pairs by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ds2d2_yolo.errors import BadUseError
from ds2d2_yolo.prepare.options import SPLITS
from ds2d2_yolo.prepare.records import BrokenFileError, Item

IMAGES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
MAX_TEXT_BYTES = 32 * 2**20  # of a text file; the largest published annotation has about 1 MB


def read_bytes(file: Path) -> bytes:
    """Read an annotation or list.

    Args:
        file (Path): The file.

    Returns:
        (bytes): Its content.

    Raises:
        BrokenFileError: If it cannot be read, or is larger than any annotation.
    """
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_TEXT_BYTES + 1)
    except OSError as e:
        raise BrokenFileError(f"cannot be read: {e.strerror}") from e
    if len(content) > MAX_TEXT_BYTES:
        raise BrokenFileError(f"has more than {MAX_TEXT_BYTES >> 20} MB, which no annotation has")
    return content


def read_lines(file: Path) -> list[str]:
    """Read the lines of a UTF-8 text file, with or without a byte-order mark, with any line ends.

    Args:
        file (Path): The file.

    Returns:
        (list[str]): Its lines without line ends.

    Raises:
        BrokenFileError: If it cannot be read, or is not UTF-8.
    """
    try:
        return read_bytes(file).decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    except UnicodeDecodeError as e:
        raise BrokenFileError(f"is no UTF-8 text (byte {e.start})") from e


def check_inside(file: Path, root: Path) -> Path:
    """Resolve the links of a file; refuse a target outside the source.

    Args:
        file (Path): The file, perhaps a link.
        root (Path): The source folder.

    Returns:
        (Path): The target.

    Raises:
        BrokenFileError: If the target lies outside `root` or does not exist.
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
    """Return whether a name from a list is a plain file name that stays in its folder.

    Args:
        name (str): Name from a list.

    Returns:
        (bool): False for paths, special and unprintable characters.
    """
    return bool(name) and name.isprintable() and name not in (".", "..") and not set(name) & set('/\\:*?"<>|')


def by_stem(folders: Iterable[Path], suffixes: Iterable[str]) -> dict[str, list[Path]]:
    """Return the files of folders by their names without suffix, without hidden files and pipes.

    Args:
        folders (Iterable[Path]): Folders to list, without their subfolders.
        suffixes (Iterable[str]): Suffixes in lower case, with dot.

    Returns:
        (dict[str, list[Path]]): Files by name without suffix.
    """
    listed_suffixes, files = frozenset(suffixes), dict[str, list[Path]]()
    for folder in folders:
        for file in sorted(folder.iterdir()):
            listed = file.suffix.lower() in listed_suffixes and not file.name.startswith(".")
            if listed and (file.is_file() or file.is_symlink()):
                files.setdefault(file.stem, []).append(file)
    return files


def holds(folder: Path, suffix: str) -> bool:
    """Return whether a folder directly contains a file with that suffix.

    Args:
        folder (Path): The folder; it may be missing.
        suffix (str): Suffix in lower case, with dot.

    Returns:
        (bool): Whether such a file exists.
    """
    return folder.is_dir() and any(f.suffix.lower() == suffix and not f.name.startswith(".") for f in folder.iterdir())


def folders_below(folder: Path, depth: int) -> Iterator[Path]:
    """Yield a folder and its subfolders, without links and image folders.

    Args:
        folder (Path): The top folder.
        depth (int): Levels of subfolders.
    """
    yield folder
    if depth:
        for child in sorted(folder.iterdir()):
            if child.is_dir() and not child.is_symlink() and not child.name.lower().startswith(("images", "jpeg")):
                yield from folders_below(child, depth - 1)


def pair(
    split: str, name: str, images: Mapping[str, list[Path]], annotations: Mapping[str, list[Path]] | None, where: str
) -> Item:
    """Pair image and annotation of a name; the item names the error if one is missing or ambiguous.

    Args:
        split (str): Its split.
        name (str): Name of the image without suffix.
        images (Mapping[str, list[Path]]): Images by name.
        annotations (Mapping[str, list[Path]] | None): Annotations by name; None if the image needs none.
        where (str): Folders of images and annotations, for the message.

    Returns:
        (Item): The item.
    """
    image, annotation = images.get(name, []), (annotations or {}).get(name, [])
    if not is_plain(name):
        return Item(split, name, error="its name is no plain file name")
    if not image:
        return Item(split, name, None, error=f"no image of this name in {where}")
    if annotations is not None and not annotation:
        return Item(split, name, image[0], error=f"no annotation of this name in {where}")
    for files in (image, annotation):
        if len(files) > 1:
            return Item(split, name, error=f"several files of this name: {', '.join(f.name for f in files)}")
    return Item(split, name, image[0], annotation[0] if annotation else None)


def selected_splits(splits: list[str] | None, available: Iterable[str], root: Path, looked_for: str) -> list[str]:
    """Return the splits to prepare, in their usual order.

    Args:
        splits (list[str] | None): Requested splits; None takes all of the source.
        available (Iterable[str]): Splits of the source.
        root (Path): The source, for the message.
        looked_for (str): Folders or files that identify a split, for the message.

    Returns:
        (list[str]): At least one.

    Raises:
        BadUseError: If a requested split is missing; without a request, if 'train' or 'val' is.
    """
    present = set(available)
    missing = [s for s in (splits or SPLITS[:2]) if s not in present]
    if missing:
        raise BadUseError(f"source={root} lacks {' and '.join(missing)}: looked for {looked_for}")
    return [s for s in SPLITS if s in present and (splits is None or s in splits)]
