"""Settings of the rivals: distillation methods other than DS2D2 that `compare` trains as arms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ds2d2_yolo.config import checks as ok
from ds2d2_yolo.config.options import Options, option

RIVAL_KEY = "rival"  # names the method of an arm that has another name


@dataclass(frozen=True)
class PKDOptions(Options):
    """Settings of `pkd`, Pearson-correlation distillation of features (arXiv 2207.02039).

    Attributes:
        weight (float): Weight of each level's loss, above 0. 10 is that of OpenMMLab's PKD for RetinaNet.

    Raises:
        BadUseError: If a value is invalid.
    """

    weight: float = option(10.0, ok.number(0, above=True), "weight of each level's loss")


@dataclass(frozen=True)
class CWDOptions(Options):
    """Settings of `cwd`, channel-wise distillation of features (arXiv 2011.13256).

    Attributes:
        tau (float): Temperature of the softmax over the cells, above 0. 1 is that of OpenMMLab's CWD for detectors.
        weight (float): Weight of each level's loss, above 0. 10 is likewise.

    Raises:
        BadUseError: If a value is invalid.
    """

    tau: float = option(1.0, ok.number(0, above=True), "temperature of the softmax over the cells")
    weight: float = option(10.0, ok.number(0, above=True), "weight of each level's loss")


@dataclass(frozen=True)
class LDOptions(Options):
    """Settings of `ld`, localization distillation of the box distributions (arXiv 2102.12252, 2204.05957).

    Attributes:
        temperature (float | None): Temperature of the softmax over the bins, above 0. None is the published one: 10 for
            upright boxes, 5 for oriented ones.
        weight (float | None): Weight of the loss, above 0. None is the published one: 0.25 for upright boxes, 10 for
            oriented ones.

    Raises:
        BadUseError: If a value is invalid.
    """

    temperature: float | None = option(
        None, ok.optional(ok.number(0, above=True)), "temperature of the softmax over the bins; unset, 10, for obb 5"
    )
    weight: float | None = option(
        None, ok.optional(ok.number(0, above=True)), "weight of the loss; unset, 0.25, for obb 10"
    )


# settings of `ld` as published, by task
LD_DEFAULTS = {"detect": {"temperature": 10.0, "weight": 0.25}, "obb": {"temperature": 5.0, "weight": 10.0}}

RIVALS: dict[str, type[Options]] = {"pkd": PKDOptions, "cwd": CWDOptions, "ld": LDOptions}


def rival_settings(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return all settings of a rival's arm, defaults included.

    Args:
        name (str): Key of `RIVALS`.
        settings (Mapping[str, Any]): Settings of the method that differ from its defaults.

    Returns:
        (dict[str, Any]): The method under `RIVAL_KEY`, and its settings.

    Raises:
        BadUseError: If a setting is unknown or invalid.
    """
    return {RIVAL_KEY: name, **RIVALS[name].of(settings, "compare").as_dict()}


def complete_settings(settings: Mapping[str, Any], task: str) -> dict[str, Any]:
    """Return the settings of a rival's arm with the published ones of a task where they are left to it.

    Args:
        settings (Mapping[str, Any]): What `rival_settings` returned.
        task (str): 'detect' or 'obb'.

    Returns:
        (dict[str, Any]): None of them is None.
    """
    published = LD_DEFAULTS[task] if settings[RIVAL_KEY] == "ld" else {}
    return {k: published[k] if v is None else v for k, v in settings.items()}


def rival_options(settings: Mapping[str, Any]) -> tuple[str, Options]:
    """Return the method of a rival's arm and its settings, the inverse of `rival_settings`.

    Args:
        settings (Mapping[str, Any]): What `rival_settings` returned.

    Returns:
        name (str): Key of `RIVALS`.
        options (Options): Of the class there.
    """
    name = str(settings[RIVAL_KEY])
    return name, RIVALS[name](**{k: v for k, v in settings.items() if k != RIVAL_KEY})
