"""Recipes: settings with a name, under those that a command gives itself."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from ds2d2_yolo.config import checks as ok
from ds2d2_yolo.config.resources import resource_dir
from ds2d2_yolo.config.settings import EXPLICIT, IMPLICIT, Settings
from ds2d2_yolo.errors import BadUseError


def recipe_names() -> list[str]:
    """Return the names of the recipes that travel with the package."""
    return sorted(f.stem for f in (resource_dir("cfg") / "recipes").glob("*.yaml"))


def load_recipe(name: str) -> dict[str, Any]:
    """Read a recipe.

    Args:
        name (str): Name of a packaged recipe, or path of a YAML of DS2D2 settings.

    Returns:
        (dict[str, Any]): Its settings.

    Raises:
        BadUseError: If there is none of that name, or it holds something else than DS2D2 settings.
    """
    if said := ok.path(name):
        raise BadUseError(f"recipe={name!r} {said}")
    path = Path(name)
    if path.suffix not in {".yaml", ".yml"}:
        path = resource_dir("cfg") / "recipes" / f"{name}.yaml"
    if not path.is_file():
        near = get_close_matches(name, recipe_names(), n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(recipe_names())}, or name a YAML file"
        raise BadUseError(f"recipe={name} does not exist: {hint}")
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as e:
        raise BadUseError(f"recipe={name} cannot be read as YAML: {str(e).splitlines()[0]}") from e
    if not isinstance(found, dict):
        raise BadUseError(f"recipe={name} holds no settings: one 'key: value' a line is expected")
    # what 'ds2d2-yolo cfg' prints is a recipe too: its empty keys say nothing
    found = {k: _number(v) for k, v in found.items() if v is not None}
    unknown = [f"'{k}'" for k in found if k not in set(Settings.keys()) - {"recipe", "teacher"}]
    if unknown:
        said = f"recipe={name} holds {', '.join(unknown)}"
        raise BadUseError(f"{said}: a recipe holds what 'ds2d2-yolo cfg' lists, but teacher and recipe")
    return found


def _number(value: Any) -> Any:
    """Return a text that is a number as one: YAML takes 1e-5, without a point, for a text."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def resolve_settings(given: Mapping[str, Any], earlier: Mapping[str, Any] | None = None) -> Settings:
    """Return the settings of a command: its own over its recipe's over those of an earlier run over the defaults.

    Gains below the command's own, of a stream that it switches off, are left out: they would contradict it.

    Args:
        given (Mapping[str, Any]): Settings of the command.
        earlier (Mapping[str, Any] | None): Settings of a run whose args.yaml the command names, its recipe's included.

    Returns:
        (Settings): Validated.

    Raises:
        BadUseError: If the recipe or any value is wrong.
    """
    usual = Settings().as_dict()
    if unknown := [f"'{k}'" for k in earlier or {} if k not in usual]:
        raise BadUseError(f"the earlier run's settings hold {', '.join(unknown)}, which this version does not have")
    below = {k: v for k, v in (earlier or {}).items() if v != usual[k] and k not in ("recipe", "safe")}
    below |= load_recipe(str(given["recipe"])) if given.get("recipe") else {}
    off = [t for on, terms in (("explicit", EXPLICIT), ("implicit", IMPLICIT)) if given.get(on) is False for t in terms]
    return Settings(**{**{k: v for k, v in below.items() if k not in off}, **given})
