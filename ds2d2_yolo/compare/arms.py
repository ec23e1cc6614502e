"""The arms of a comparison: what each trains with, read from a command or a YAML."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from ds2d2_yolo.config.recipes import load_recipe, resolve_settings
from ds2d2_yolo.config.settings import EXPLICIT, IMPLICIT, Settings
from ds2d2_yolo.errors import BadUseError

UPSTREAM = "dis"  # the one setting of Ultralytics' own distillation
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
OWN = re.compile(r"[^:]*:\s*\w+\s*=")  # how an arm with settings begins; a path such as C:\arms.yaml does not


@dataclass(frozen=True)
class Arm:
    """A way to train the student.

    Attributes:
        name (str): Its name, also of its folder.
        kind (str): 'teacher' (measured, not trained), 'plain' (student alone), 'distill_model' (Ultralytics' own
            distillation) or 'ds2d2'.
        settings (dict[str, Any]): Its own settings: of DS2D2, or `dis` of Ultralytics' distillation.
    """

    name: str
    kind: str
    settings: dict[str, Any] = field(default_factory=dict)


BUILT_IN = {
    "teacher": Arm("teacher", "teacher"),
    "plain": Arm("plain", "plain"),
    "distill_model": Arm("distill_model", "distill_model"),
    "ds2d2": Arm("ds2d2", "ds2d2"),
    "explicit": Arm("explicit", "ds2d2", {"implicit": False}),
    "implicit": Arm("implicit", "ds2d2", {"explicit": False}),
}


def read_arms(given: str | Iterable[str]) -> tuple[Arm, ...]:
    """Return the arms that a command names.

    Args:
        given (str | Iterable[str]): Parted by commas, each a built-in arm's name, `name:key=value;key=value`, or the
            path of a YAML that maps names to settings; a built-in arm stands there with no settings.

    Returns:
        (tuple[Arm, ...]): In the order named.

    Raises:
        BadUseError: If an arm is unknown, named twice, or has a setting that no arm takes.

    Examples:
        >>> [arm.settings for arm in read_arms("plain,db2:wavelet=db2;levels=[8,16]")]
        [{}, {'wavelet': 'db2', 'levels': [8, 16]}]
    """
    texts = [given] if isinstance(given, str) else [str(text) for text in given]
    arms: list[Arm] = []
    for text in (part.strip() for whole in texts for part in re.split(r",(?![^\[]*\])", whole)):
        if text.endswith((".yaml", ".yml")) and not OWN.match(text):  # the last setting may be recipe=PATH.yaml
            arms += [_arm(name, settings) for name, settings in _read_yaml(text).items()]
        elif text:
            name, colon, settings = text.partition(":")
            arms.append(_arm(name.strip(), _parse(text, settings) if colon else None))
    names = [arm.name for arm in arms]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise BadUseError(f"arms= names {', '.join(twice)} twice")
    if not arms:
        raise BadUseError("arms= names no arm")
    return tuple(arms)


def settings_of(arm: Arm, shared: Mapping[str, Any]) -> dict[str, Any]:
    """Return the DS2D2 settings that an arm runs with: its own over the shared ones.

    A shared gain of a stream that the arm switches off is left out, it would contradict that. So is what the arm's own
    recipe sets: a recipe stands under the settings beside it, and the shared ones would undo it.

    Args:
        arm (Arm): The arm; those of other kinds than 'ds2d2' take none.
        shared (Mapping[str, Any]): DS2D2 settings of the command, without teacher.

    Returns:
        (dict[str, Any]): Settings as `distill` takes them.

    Raises:
        BadUseError: If they are wrong or contradict each other, naming the arm.
    """
    if arm.kind != "ds2d2":
        return {}
    streams = ("explicit", EXPLICIT), ("implicit", IMPLICIT)
    out: set[str] = {t for on, terms in streams if arm.settings.get(on) is False for t in terms}
    try:
        if arm.settings.get("recipe"):
            out |= load_recipe(str(arm.settings["recipe"])).keys()
        found = {**{k: v for k, v in shared.items() if k not in out}, **arm.settings}
        active = resolve_settings(found).active
    except BadUseError as e:
        raise BadUseError(f"arm {arm.name}: {e}") from e
    if not active:
        raise BadUseError(f"arm {arm.name} has no term that is on: that is the arm plain")
    return found


def _arm(name: str, settings: Mapping[str, Any] | None) -> Arm:
    """Return an arm by its name and its own settings, checked."""
    if settings is None:
        if name not in BUILT_IN:
            near = get_close_matches(name, BUILT_IN, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(BUILT_IN)}"
            raise BadUseError(f"unknown arm '{name}': {hint} One of your own has settings: {name}:wavelet=db2")
        return BUILT_IN[name]
    if name in BUILT_IN:
        raise BadUseError(f"arm '{name}' is built in: give the one with other settings another name")
    if not NAME.fullmatch(name) or name == "amplifiers":  # the folder of those
        raise BadUseError(
            f"arm '{name}' must have a name of letters, digits, '-', '_' and '.', such as db2, and not 'amplifiers'"
        )
    known = {*Settings.keys(), UPSTREAM} - {"teacher", "safe"}
    if unknown := [k for k in settings if k not in known]:
        near = get_close_matches(unknown[0], known, n=1)
        hint = f" (did you mean '{near[0]}'?)" if near else ""
        said = f"arm {name}: '{unknown[0]}'{hint} is no setting of an arm"
        raise BadUseError(f"{said}: one takes DS2D2 settings, or {UPSTREAM}=; the rest is the same for all arms")
    if UPSTREAM in settings and len(settings) > 1:
        raise BadUseError(f"arm {name}: {UPSTREAM}= is of Ultralytics' own distillation and goes with nothing else")
    return Arm(name, "distill_model" if UPSTREAM in settings else "ds2d2", dict(settings))


def _parse(text: str, settings: str) -> dict[str, Any]:
    """Return the settings of `key=value;key=value`, typed as YAML types them."""
    found: dict[str, Any] = {}
    for part in filter(None, (p.strip() for p in settings.split(";"))):
        key, equals, value = (p.strip() for p in part.partition("="))
        if not (equals and key and value) or key in found:
            raise BadUseError(f"arm '{text}' must read name:key=value;key=value, each key once")
        found[key] = _typed(value)
    if not found:
        raise BadUseError(f"arm '{text}' must read name:key=value;key=value")
    return found


def _typed(value: str) -> Any:
    """Type a text as YAML does; 1e-5, which YAML 1.1 takes for a text, becomes a number."""
    try:
        found = yaml.safe_load(value)
        return float(found) if isinstance(found, str) and re.fullmatch(r"[+-]?[\d.]+[eE][+-]?\d+", found) else found
    except yaml.YAMLError:
        return value


def _read_yaml(path: str) -> dict[str, dict[str, Any] | None]:
    """Return the arms of a YAML file."""
    try:
        found = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as e:
        raise BadUseError(f"arms={path} cannot be read as YAML: {str(e).splitlines()[0]}") from e
    if not isinstance(found, dict) or not all(v is None or isinstance(v, dict) for v in found.values()):
        raise BadUseError(f"arms={path} holds no arms: 'name: {{key: value}}' a line is expected")
    return {str(k): v if v is None else {str(a): _typed(b) if isinstance(b, str) else b for a, b in v.items()}
            for k, v in found.items()}  # fmt: skip
