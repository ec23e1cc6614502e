"""What a benchmark is asked for: the models' names, the images, and whether they go together."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ds2d2_yolo.bridge.data.dataset import refuse_upright
from ds2d2_yolo.bridge.data.images import read_image
from ds2d2_yolo.bridge.inference.export import Checkpoint
from ds2d2_yolo.deploy.images import evenly_spaced
from ds2d2_yolo.deploy.options import listed
from ds2d2_yolo.errors import BadUseError, DS2D2Error

IMAGES = 16  # validation images that the timed runs take in turn


def timed(images: list[Path]) -> list[Path]:
    """Return the validation images that the timed runs take in turn."""
    return evenly_spaced(images, IMAGES)


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
        refuse_upright(images, model.task, f"{name}, an obb model,")
        if model.channels != channels:
            raise BadUseError(f"{name} takes {model.channels} channels, and the data have {channels}")
    for image in timed(images):
        try:
            read_image(image, channels)
        except DS2D2Error as e:
            raise BadUseError(f"{e}: correct it, or remove it from the validation split") from e


def named(models: str | list[str]) -> list[tuple[str, str]]:
    """Return name and path of each model; that of a run's best.pt is the run's.

    Raises:
        BadUseError: If two have one name.
    """
    found = []
    for text in listed(models):
        name, colon, path = text.partition(":")
        if not colon or (os.name == "nt" and len(name) == 1):  # one letter is a drive there
            file = Path(os.path.abspath(Path(text).expanduser()))  # a link keeps its own name
            run = file.parent.parent if file.parent.name == "weights" else file.parent
            name, path = (run.name if file.stem in {"best", "last"} else file.stem), text
        found.append((name, path))
    if len({name for name, _ in found}) < len(found):
        raise BadUseError(f"model={models} names two models alike: give them names, such as model=one:a.pt,two:b.pt")
    return found
