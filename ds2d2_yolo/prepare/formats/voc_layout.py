"""Readers of the published folders of DIOR, DIOR-R and HIT-UAV, and of HIT-UAV in the YOLO layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ds2d2_yolo.errors import BadUseError
from ds2d2_yolo.prepare.formats.voc import voc_reader
from ds2d2_yolo.prepare.formats.yolo import find_yolo
from ds2d2_yolo.prepare.options import SPLITS, PrepareOptions
from ds2d2_yolo.prepare.records import BrokenFileError, Item, Layout
from ds2d2_yolo.prepare.source_folder import IMAGES, by_stem, check_inside, holds, pair, read_lines, selected_splits

SPLIT_LISTS = ("ImageSets/Main", "Main", "ImageSets")
ANNOTATION_FOLDERS = {True: ("Oriented Bounding Boxes", "oriented"), False: ("Horizontal Bounding Boxes", "horizontal")}


def find_dior(root: Path, options: PrepareOptions) -> Layout:
    """Find DIOR with horizontal boxes; arguments, result and errors as in `find_dior_r`.

    Args:
        root (Path): As in `find_dior_r`.
        options (PrepareOptions): As in `find_dior_r`.

    Returns:
        (Layout): Its images.
    """
    return _find(root, options, oriented=False)


def find_dior_r(root: Path, options: PrepareOptions) -> Layout:
    """Find DIOR with oriented boxes.

    Args:
        root (Path): The folder with JPEGImages-trainval/, JPEGImages-test/, Annotations/ and ImageSets/Main/.
        options (PrepareOptions): `splits` selects the splits.

    Returns:
        (Layout): Its images.

    Raises:
        BadUseError: If images, annotations or split lists are missing.
    """
    return _find(root, options, oriented=True)


def find_hit_uav(root: Path, options: PrepareOptions) -> Layout:
    """Find HIT-UAV: the repository, its folder rotate_xml or normal_xml, or a copy in the YOLO layout.

    Args:
        root (Path): One of these folders.
        options (PrepareOptions): `splits` selects the splits.

    Returns:
        (Layout): Its images, with oriented boxes if the source has them.

    Raises:
        BadUseError: If none of them exists.
    """
    if (root / "images").is_dir() and (root / "labels").is_dir():
        return find_yolo(root, options)
    for folder, oriented in (
        (root / "rotate_xml", True), (root / "normal_xml", False), (root, root.name.lower() != "normal_xml"),
    ):  # fmt: skip
        if holds(folder / "Annotations", ".xml"):
            return _find(folder, options, oriented, without_class=("dontcare",))
    raise BadUseError(
        f"source={root} is no HIT-UAV: looked for rotate_xml/Annotations, normal_xml/Annotations, or images/ and "
        "labels/"
    )


def _find(root: Path, options: PrepareOptions, oriented: bool, without_class: tuple[str, ...] = ()) -> Layout:
    """Find images, annotations and split lists in VOC folders."""
    kind = ANNOTATION_FOLDERS[oriented]
    places = [f"{base}{name}" for base in ("Annotations/", "annotations/", "") for name in kind] + ["Annotations"]
    folder = next((root / p for p in places if holds(root / p, ".xml")), None)
    images = [
        f for pattern in ("JPEGImages*", "JPEGImages*/JPEGImages*", "images/*") for f in sorted(root.glob(pattern))
    ]
    images = [f for f in images if any(holds(f, suffix) for suffix in IMAGES)]
    lists = next((root / p for p in SPLIT_LISTS if holds(root / p, ".txt")), None)
    missing = [
        description
        for present, description in (
            (images, "images (JPEGImages-trainval, JPEGImages-test or JPEGImages)"),
            (folder, f"annotations (Annotations/{kind[0]})"),
            (lists, "split lists (ImageSets/Main/train.txt, val.txt, test.txt)"),
        )
        if not present
    ]
    if missing or folder is None or lists is None:
        raise BadUseError(f"source={root} lacks {'; '.join(missing)}")
    files = {s: lists / f"{s}.txt" for s in SPLITS if (lists / f"{s}.txt").is_file()}
    splits = selected_splits(options.chosen, files, root, f"{lists.relative_to(root)}/train.txt, val.txt, test.txt")
    items = _listed({s: files[s] for s in splits}, root, images, folder)
    folders = (str(folder.relative_to(root)),)
    return Layout(root, items, voc_reader(oriented), oriented, without_class=without_class, annotation_folders=folders)


def _listed(lists: dict[str, Path], root: Path, images: Sequence[Path], folder: Path) -> list[Item]:
    """Return the items of the split lists; the <filename> inside an annotation is never used as a path."""
    by_name, annotations = by_stem(images, IMAGES), by_stem([folder], [".xml"])
    where = f"{', '.join(str(f.relative_to(root)) for f in images)} and {folder.relative_to(root)}"
    items = []
    for split, file in lists.items():
        try:
            lines = read_lines(check_inside(file, root))
        except BrokenFileError as e:
            raise BadUseError(f"{file} {e}") from e
        names = dict.fromkeys(_name(line) for line in lines if line.strip())  # some lists repeat names
        items += [pair(split, name, by_name, annotations, where) for name in names]
    return items


def _name(line: str) -> str:
    """Return the image name in a line of a split list, without suffix."""
    name = line.strip()
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in IMAGES else name
