"""Registry of the data sets that can be prepared: data YAML and reader of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from ds2d2_yolo.config.resources import resource_dir
from ds2d2_yolo.errors import BadUseError
from ds2d2_yolo.prepare.formats.dota import find_dota
from ds2d2_yolo.prepare.formats.voc_layout import find_dior, find_dior_r, find_hit_uav
from ds2d2_yolo.prepare.options import PrepareOptions
from ds2d2_yolo.prepare.records import Layout


@dataclass(frozen=True)
class Published:
    """A published data set.

    Attributes:
        yaml (str): Packaged data YAML with the classes and the default folder.
        task (str): 'detect' or 'obb'.
        find (Callable[[Path, PrepareOptions], Layout]): Locates the files in a folder, or raises BadUseError.
        command (str): Arguments of 'ds2d2-yolo data prepare' for it.
        tiled (bool): Whether its images are cut into tiles.
    """

    yaml: str
    task: str
    find: Callable[[Path, PrepareOptions], Layout]
    command: str
    tiled: bool = False

    def description(self) -> dict[str, Any]:
        """Return the content of the data YAML."""
        content: dict[str, Any] = yaml.safe_load((resource_dir("data") / self.yaml).read_text(encoding="utf-8"))
        return content

    def classes(self) -> tuple[str, ...]:
        """Return the class names, in order."""
        return tuple(name for _, name in sorted(self.description()["names"].items()))


PUBLISHED = {
    "dota": Published("dota.yaml", "obb", find_dota, "dota", tiled=True),
    "dota-v1.5": Published("dota-v1.5.yaml", "obb", find_dota, "dota version=1.5", tiled=True),
    "dior": Published("dior.yaml", "detect", find_dior, "dior"),
    "dior-r": Published("dior-r.yaml", "obb", find_dior_r, "dior-r"),
    "hit-uav": Published("hit-uav.yaml", "obb", find_hit_uav, "hit-uav"),
}
NAMES = tuple(name for name in PUBLISHED if name != "dota-v1.5")


def published(dataset: str, options: PrepareOptions) -> Published:
    """Look up a data set by name.

    Args:
        dataset (str): One of `NAMES`.
        options (PrepareOptions): `version` selects the version of DOTA.

    Returns:
        (Published): The data set.

    Raises:
        BadUseError: If the name is unknown.
    """
    if dataset not in NAMES:
        near = get_close_matches(dataset.lower(), NAMES, n=1)
        hint = f" (did you mean '{near[0]}'?)" if near else ""
        raise BadUseError(f"unknown data set '{dataset}'{hint}: {', '.join(NAMES)} can be prepared")
    return PUBLISHED["dota-v1.5" if dataset == "dota" and float(options.version) == 1.5 else dataset]
