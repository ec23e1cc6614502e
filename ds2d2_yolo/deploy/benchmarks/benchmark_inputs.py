"""Inputs of a benchmark: the models' names, the timed images, and checks of models against the data."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ds2d2_yolo.bridge.data.class_map import class_names
from ds2d2_yolo.bridge.data.images import read_image
from ds2d2_yolo.bridge.data.label_checks import check_split
from ds2d2_yolo.bridge.inference.export import Checkpoint
from ds2d2_yolo.bridge.validation.class_names import class_warning
from ds2d2_yolo.deploy.options import split_names
from ds2d2_yolo.errors import BadUseError, DS2D2Error
from ds2d2_yolo.utils.sampling import evenly_spaced

MAX_TIMED_IMAGES = 16


def timed_images(images: list[Path]) -> list[Path]:
    """Return the validation images that the timed runs use in turn.

    Args:
        images (list[Path]): All validation images.

    Returns:
        (list[Path]): At most `MAX_TIMED_IMAGES`, evenly spaced.
    """
    return evenly_spaced(images, MAX_TIMED_IMAGES)


def refuse_unfit(models: Mapping[str, Checkpoint], data: Mapping[str, Any], images: list[Path]) -> None:
    """Refuse models that cannot be validated on a data set, and timed images that cannot be read.

    Args:
        models (Mapping[str, Checkpoint]): The models by name.
        data (Mapping[str, Any]): Data set as `check_det_dataset` returns it.
        images (list[Path]): Its validation images.

    Raises:
        BadUseError: Naming the first thing that does not fit.
    """
    channels = data.get("channels", 3)
    for name, model in models.items():
        check_split(data, images, model.task, f"{name}, an obb model,", "validation")
        if model.channels != channels:
            raise BadUseError(f"{name} takes {model.channels} channels, and the data have {channels}")
    for image in timed_images(images):
        try:
            read_image(image, channels)
        except DS2D2Error as e:
            raise BadUseError(f"{e}: correct it, or remove it from the validation split") from e


def class_warnings(models: Mapping[str, Checkpoint], data: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a warning for each model whose class names differ from the data's.

    Args:
        models (Mapping[str, Checkpoint]): The models by name.
        data (Mapping[str, Any]): Data set as `check_det_dataset` returns it.

    Returns:
        (tuple[str, ...]): One line each.
    """
    names = class_names(data["names"])
    warnings = ((name, class_warning(model.names, names)) for name, model in models.items())
    return tuple(f"WARNING: mAP of {name}: {warning}" for name, warning in warnings if warning)


def parse_models(models: str | list[str]) -> list[tuple[str, str]]:
    """Return name and path of each model; the best.pt or last.pt of a run has the run's name.

    Args:
        models (str | list[str]): Paths or name:path, as a list or as text with commas.

    Returns:
        (list[tuple[str, str]]): Name and path.

    Raises:
        BadUseError: If two models have one name.
    """
    named = []
    for text in split_names(models):
        name, colon, path = text.partition(":")
        if not colon or (os.name == "nt" and len(name) == 1):  # on Windows one letter is a drive
            file = Path(os.path.abspath(Path(text).expanduser()))  # not resolved: a link keeps its name
            run = file.parent.parent if file.parent.name == "weights" else file.parent
            name, path = (run.name if file.stem in {"best", "last"} else file.stem), text
        named.append((name, path))
    if len({name for name, _ in named}) < len(named):
        raise BadUseError(f"model={models} names two models alike: give them names, such as model=one:a.pt,two:b.pt")
    return named
