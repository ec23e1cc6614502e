"""Recipes: named settings below those that a command gives."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from ds2d2_yolo.config import checks as ok
from ds2d2_yolo.config.resources import resource_dir
from ds2d2_yolo.config.settings import TERMS, Settings
from ds2d2_yolo.errors import BadUseError

# removed settings, each with the value that still describes every run; files of earlier versions name them
REMOVED = {"extent": "touched", "robust": False, "adapter_lr": 1.0, "adapter_scale": "none", "gain_refresh": 0.0}


def recipe_names() -> list[str]:
    """Return the names of the packaged recipes."""
    return sorted(f.stem for f in (resource_dir("cfg") / "recipes").glob("*.yaml"))


def load_recipe(name: str) -> dict[str, Any]:
    """Read a recipe.

    Args:
        name (str): Name of a packaged recipe, or path of a YAML of DS2D2 settings.

    Returns:
        (dict[str, Any]): Its settings.

    Raises:
        BadUseError: If the recipe does not exist, or holds anything but DS2D2 settings.
    """
    if error := ok.path(name):
        raise BadUseError(f"recipe={name!r} {error}")
    path = Path(name)
    if path.suffix not in {".yaml", ".yml"}:
        path = resource_dir("cfg") / "recipes" / f"{name}.yaml"
    if not path.is_file():
        near = get_close_matches(name, recipe_names(), n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(recipe_names())}, or name a YAML file"
        raise BadUseError(f"recipe={name} does not exist: {hint}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as e:
        raise BadUseError(f"recipe={name} cannot be read as YAML: {str(e).splitlines()[0]}") from e
    if not isinstance(content, dict):
        raise BadUseError(f"recipe={name} holds no settings: one 'key: value' a line is expected")
    # the output of 'ds2d2-yolo cfg' is a recipe too: its empty keys mean the default
    settings = {k: _number(v) for k, v in content.items() if v is not None}
    if unknown := [f"'{k}'" for k in settings if k not in set(Settings.keys()) - {"recipe", "teacher"}]:
        names = ", ".join(unknown)
        raise BadUseError(
            f"recipe={name} holds {names}: a recipe holds what 'ds2d2-yolo cfg' lists, but teacher and recipe"
        )
    return settings


def _number(value: Any) -> Any:
    """Return a text that holds a number as that number: YAML reads 1e-5, without a point, as text."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def saved_settings(saved: Mapping[str, Any]) -> Settings:
    """Return the settings in the files of an earlier run.

    Args:
        saved (Mapping[str, Any]): Settings as a run saved them.

    Returns:
        (Settings): Validated.

    Raises:
        BadUseError: If they hold settings that this version does not have.
    """
    known, settings = Settings.keys(), {k: v for k, v in saved.items() if k not in REMOVED or REMOVED[k] != v}
    if unknown := [f"'{k}'" for k in settings if k not in known]:
        raise BadUseError(f"the earlier run's settings hold {', '.join(unknown)}, which this version does not have")
    return Settings(**settings)


def resolve_settings(requested: Mapping[str, Any], earlier: Mapping[str, Any] | None = None) -> Settings:
    """Return the settings of a command. They override the recipe's, an earlier run's and the defaults, in this order.

    Lower-priority gains of a stream that the command switches off are left out: they would contradict it.

    Args:
        requested (Mapping[str, Any]): Settings of the command.
        earlier (Mapping[str, Any] | None): Settings of a run whose args.yaml the command names, its recipe's included.

    Returns:
        (Settings): Validated.

    Raises:
        BadUseError: If the recipe or any value is invalid.
    """
    defaults, before = Settings().as_dict(), saved_settings(earlier or {}).as_dict()
    lower = {k: v for k, v in before.items() if v != defaults[k] and k not in ("recipe", "safe")}
    lower |= load_recipe(str(requested["recipe"])) if requested.get("recipe") else {}
    off = [term for term in TERMS if requested.get(term.stream) is False]
    return Settings(**{**{k: v for k, v in lower.items() if k not in off}, **requested})
