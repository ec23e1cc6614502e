"""Where unlabelled images come from: the values of `unlabelled=`, resolved to files."""

from __future__ import annotations

import glob
from argparse import Namespace
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ultralytics.data.utils import IMG_FORMATS, get_split_fraction

from ds2d2_yolo.bridge.data.images import list_images, take_fraction
from ds2d2_yolo.errors import BadUseError

REST = "rest"  # value that takes the training images that `fraction=` leaves out
KEY = "unlabelled"  # of the data YAML


def resolve_sources(value: Any, data: Mapping[str, Any]) -> str | list[str] | None:
    """Return what `unlabelled=` names, with absolute paths, so that a resumed or launched run finds the same files.

    Args:
        value (Any): The setting: None takes the key `unlabelled` of the data YAML where there is one, True needs that
            key, False takes no image. Otherwise a folder, an image, a glob, a .txt list of paths, 'rest', or a list of
            those.
        data (Mapping[str, Any]): Data set as `check_det_dataset` returns it.

    Returns:
        (str | list[str] | None): None for no unlabelled images.

    Raises:
        BadUseError: If True was given and the YAML has no such key.
    """
    if value is False:
        return None
    root = Path.cwd()
    if value is None or value is True:
        if value and not data.get(KEY):
            raise BadUseError(
                f"{KEY}=True takes the key '{KEY}' of the data YAML, which has none: add it, or name files"
            )
        value, root = data.get(KEY), Path(data.get("path") or ".").absolute()
    if not value:
        return None
    if isinstance(value, (list, tuple)):
        return [_absolute(str(entry), root) for entry in value]
    return _absolute(str(value), root)


def other_sources(requested: Any, stored: Any) -> bool:
    """Return whether a command that resumes a run names other unlabelled images than the run has.

    Args:
        requested (Any): `unlabelled=` of the command; None and True leave the choice to the run.
        stored (Any): `unlabelled` of the run, as `resolve_sources` returned it.

    Returns:
        (bool): True for other images.
    """
    if requested is None or requested is True:
        return False
    return (resolve_sources(requested, {}) or None) != (stored or None)


def _absolute(entry: str, root: Path) -> str:
    """Return an entry as an absolute path; 'rest' stays."""
    return entry if entry == REST else str(root / Path(entry).expanduser())


def list_unlabelled(sources: str | list[str], data: Mapping[str, Any], args: Namespace) -> list[Path]:
    """List the images of `unlabelled=`.

    Args:
        sources (str | list[str]): From `resolve_sources`.
        data (Mapping[str, Any]): The data set.
        args (Namespace): Ultralytics' settings, for `fraction`.

    Returns:
        (list[Path]): Each path once, sorted as text; files of a list need not exist.

    Raises:
        BadUseError: If an entry does not exist or holds no image.
    """
    images: dict[str, Path] = {}
    for entry in [sources] if isinstance(sources, str) else sources:
        listed = _left_out_by_fraction(data, args) if entry == REST else _list_entry(entry)
        if not listed:
            raise BadUseError(f"{KEY}={entry} holds no image: name a folder, a glob or a .txt list of images")
        images |= {str(image): image for image in listed}
    return [images[name] for name in sorted(images)]


def training_images(data: Mapping[str, Any], args: Namespace) -> list[Path]:
    """Return the labelled images that a run takes.

    Args:
        data (Mapping[str, Any]): The data set.
        args (Namespace): Ultralytics' settings, for `fraction`.

    Returns:
        (list[Path]): Images of the training split.
    """
    images = list_images(data["train"])
    return images if data.get("complete") else take_fraction(images, get_split_fraction(args.fraction, "train"))


def _left_out_by_fraction(data: Mapping[str, Any], args: Namespace) -> list[Path]:
    """Return the training images that `fraction=` leaves out."""
    taken = len(training_images(data, args))
    images = list_images(data["train"])[taken:]
    if not images:
        raise BadUseError(
            f"{KEY}={REST} takes the training images that fraction= leaves out, and fraction={args.fraction} leaves "
            "out none: lower it, such as fraction=0.5"
        )
    return images


def _list_entry(entry: str) -> list[Path]:
    """Return the images of one entry."""
    path = Path(entry)
    if path.is_dir() or path.suffix.lower() == ".txt":
        _refuse_missing(path)
        return list_images(entry)
    if path.is_file():
        return [path] if _is_image(entry) else []
    if glob.has_magic(entry):
        matches = sorted(glob.glob(entry, recursive=True))
        folders = [image for match in matches if Path(match).is_dir() for image in list_images(match)]
        return [*folders, *(Path(match) for match in matches if _is_image(match) and Path(match).is_file())]
    _refuse_missing(path)
    return []


def _is_image(name: str) -> bool:
    """Return whether a name has the suffix of an image."""
    return name.rpartition(".")[-1].lower() in IMG_FORMATS


def _refuse_missing(path: Path) -> None:
    """Refuse a path that does not exist, and suggest the nearest name in its folder."""
    if path.exists():
        return
    siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    near = get_close_matches(path.name, siblings, n=1)
    hint = f" (did you mean '{near[0]}'?)" if near else ""
    raise BadUseError(f"{KEY}={path} does not exist{hint}: name a folder, a glob or a .txt list of images")
