"""The arms of a comparison and their settings, read from a command or a YAML file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from ds2d2_yolo.config.recipes import load_recipe, resolve_settings
from ds2d2_yolo.config.rivals import RIVAL_KEY, RIVALS, rival_settings
from ds2d2_yolo.config.settings import TERMS, Settings
from ds2d2_yolo.errors import BadUseError

UPSTREAM_KEY = "dis"  # the only setting of Ultralytics' own distillation
FOLDERS = ("amplifiers", "pseudo-labels")  # of a comparison, that belong to no arm
ARM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
ARM_WITH_SETTINGS = re.compile(r"[^:]*:\s*\w+\s*=")  # does not match a path such as C:\arms.yaml


@dataclass(frozen=True)
class Arm:
    """A way to train the student.

    Attributes:
        name (str): Name of the arm and of its folder.
        kind (str): 'teacher' (measured, not trained), 'plain' (training without a teacher), 'distill_model'
            (Ultralytics' own distillation), 'rival' (another method of `config.rivals`), 'pseudo_labels' (training
            without a teacher on labelled images, and on unlabelled ones with its detections as labels) or 'ds2d2'.
        settings (dict[str, Any]): Settings that differ from the shared ones: of DS2D2, or `dis` of Ultralytics'
            distillation. Those of a rival are complete.
    """

    name: str
    kind: str
    settings: dict[str, Any] = field(default_factory=dict)


BUILT_IN = {
    "teacher": Arm("teacher", "teacher"),
    "plain": Arm("plain", "plain"),
    "distill_model": Arm("distill_model", "distill_model"),
    "pseudo_labels": Arm("pseudo_labels", "pseudo_labels"),
    "ds2d2": Arm("ds2d2", "ds2d2"),
    "explicit": Arm("explicit", "ds2d2", {"implicit": False}),
    "implicit": Arm("implicit", "ds2d2", {"explicit": False}),
    **{name: Arm(name, "rival", rival_settings(name, {})) for name in RIVALS},
}


def read_arms(names: str | Iterable[str]) -> tuple[Arm, ...]:
    """Return the arms that a command names.

    Args:
        names (str | Iterable[str]): Arms separated by commas: the name of a built-in arm, `name:key=value;key=value`,
            or the path of a YAML file that maps names to settings, where a built-in arm has no settings.

    Returns:
        (tuple[Arm, ...]): The arms in the order of the command.

    Raises:
        BadUseError: If an arm is unknown, named twice, or has an unknown setting.

    Examples:
        >>> [arm.settings for arm in read_arms("plain,db2:wavelet=db2;levels=[8,16]")]
        [{}, {'wavelet': 'db2', 'levels': [8, 16]}]
    """
    texts = [names] if isinstance(names, str) else [str(text) for text in names]
    arms: list[Arm] = []
    for text in (part.strip() for listed in texts for part in re.split(r",(?![^\[]*\])", listed)):
        if text.endswith((".yaml", ".yml")) and not ARM_WITH_SETTINGS.match(
            text
        ):  # the last setting may be recipe=PATH.yaml
            arms += [_arm(name, settings) for name, settings in _read_yaml(text).items()]
        elif text:
            name, colon, settings = text.partition(":")
            arms.append(_arm(name.strip(), _parse(text, settings) if colon else None))
    named = [arm.name for arm in arms]
    if repeated := sorted({name for name in named if named.count(name) > 1}):
        raise BadUseError(f"arms= names {', '.join(repeated)} twice")
    if not arms:
        raise BadUseError("arms= names no arm")
    return tuple(arms)


def arm_settings(arm: Arm, shared: Mapping[str, Any]) -> dict[str, Any]:
    """Return the DS2D2 settings of an arm: the settings of the command, overridden by those of the arm.

    Two kinds of shared settings are left out. The gains of a stream that the arm switches off would contradict it. The
    settings of the arm's recipe would be undone, because explicit settings override a recipe.

    Args:
        arm (Arm): The arm.
        shared (Mapping[str, Any]): DS2D2 settings of the command, without teacher.

    Returns:
        (dict[str, Any]): Settings for `distill`; empty for an arm of another kind than 'ds2d2'.

    Raises:
        BadUseError: If the settings are wrong or contradict each other; the message names the arm.
    """
    if arm.kind != "ds2d2":
        return {}
    excluded: set[str] = {term for term in TERMS if arm.settings.get(term.stream) is False}
    try:
        if arm.settings.get("recipe"):
            excluded |= load_recipe(str(arm.settings["recipe"])).keys()
        settings = {**{k: v for k, v in shared.items() if k not in excluded}, **arm.settings}
        resolved = resolve_settings(settings)
    except BadUseError as e:
        raise BadUseError(f"arm {arm.name}: {e}") from e
    if not resolved.active and resolved.teacher_imgsz is None:  # which changes the student's images without a term too
        raise BadUseError(f"arm {arm.name} has no term that is on: that is the arm plain")
    return settings


def _arm(name: str, settings: Mapping[str, Any] | None) -> Arm:
    """Return the arm of a name and its settings, checked; None stands for a built-in arm."""
    if settings is None:
        if name not in BUILT_IN:
            near = get_close_matches(name, BUILT_IN, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(BUILT_IN)}"
            raise BadUseError(f"unknown arm '{name}': {hint} A custom arm has settings: {name}:wavelet=db2")
        return BUILT_IN[name]
    rival = name if name in RIVALS else settings.get(RIVAL_KEY)
    if name in BUILT_IN and name not in RIVALS:
        raise BadUseError(f"arm '{name}' is built in: give the one with other settings another name")
    if not ARM_NAME.fullmatch(name) or name in FOLDERS:
        raise BadUseError(
            f"arm '{name}' must have a name of letters, digits, '-', '_' and '.', such as db2, and not "
            f"{' or '.join(repr(folder) for folder in FOLDERS)}"
        )
    if rival is not None:
        return _rival_arm(name, rival, settings)
    known = {*Settings.keys(), UPSTREAM_KEY} - {"teacher", "safe"}
    if unknown := [k for k in settings if k not in known]:
        near = get_close_matches(unknown[0], known, n=1)
        hint = f" (did you mean '{near[0]}'?)" if near else ""
        raise BadUseError(
            f"arm {name}: '{unknown[0]}'{hint} is no setting of an arm: one takes DS2D2 settings, or {UPSTREAM_KEY}=; "
            "all other settings are the same for all arms"
        )
    if UPSTREAM_KEY in settings and len(settings) > 1:
        raise BadUseError(f"arm {name}: {UPSTREAM_KEY}= is of Ultralytics' own distillation and goes with nothing else")
    return Arm(name, "distill_model" if UPSTREAM_KEY in settings else "ds2d2", dict(settings))


def _rival_arm(name: str, rival: Any, settings: Mapping[str, Any]) -> Arm:
    """Return the arm of a rival with settings, checked."""
    if not isinstance(rival, str) or rival not in RIVALS:
        raise BadUseError(f"arm {name}: {RIVAL_KEY}={rival} must be one of {', '.join(RIVALS)}")
    if settings.get(RIVAL_KEY, rival) != rival:
        raise BadUseError(f"arm {name}: {RIVAL_KEY}={settings[RIVAL_KEY]} contradicts its name: choose another name")
    try:
        return Arm(name, "rival", rival_settings(rival, {k: v for k, v in settings.items() if k != RIVAL_KEY}))
    except BadUseError as e:
        raise BadUseError(f"arm {name}: {e}") from e


def _parse(text: str, settings: str) -> dict[str, Any]:
    """Return the settings of `key=value;key=value`, typed as YAML types them."""
    parsed: dict[str, Any] = {}
    for part in filter(None, (p.strip() for p in settings.split(";"))):
        key, equals, value = (p.strip() for p in part.partition("="))
        if not (equals and key and value) or key in parsed:
            raise BadUseError(f"arm '{text}' must read name:key=value;key=value, each key once")
        parsed[key] = _typed(value)
    if not parsed:
        raise BadUseError(f"arm '{text}' must read name:key=value;key=value")
    return parsed


def _typed(value: str) -> Any:
    """Parse a value as YAML, and 1e-5, which YAML 1.1 reads as text, as a number."""
    try:
        parsed = yaml.safe_load(value)
        return float(parsed) if isinstance(parsed, str) and re.fullmatch(r"[+-]?[\d.]+[eE][+-]?\d+", parsed) else parsed
    except yaml.YAMLError:
        return value


def _read_yaml(path: str) -> dict[str, dict[str, Any] | None]:
    """Return the arms of a YAML file."""
    try:
        arms = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as e:
        raise BadUseError(f"arms={path} cannot be read as YAML: {str(e).splitlines()[0]}") from e
    if not isinstance(arms, dict) or not all(v is None or isinstance(v, dict) for v in arms.values()):
        raise BadUseError(f"arms={path} holds no arms: 'name: {{key: value}}' a line is expected")
    return {str(k): v if v is None else {str(a): _typed(b) if isinstance(b, str) else b for a, b in v.items()}
            for k, v in arms.items()}  # fmt: skip
