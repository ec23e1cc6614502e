"""The table of the packaged data sets."""

from __future__ import annotations

from pathlib import Path

import yaml

from ds2d2_yolo.bridge.data.dota_tiles import datasets_dir
from ds2d2_yolo.config.resources import resource_dir
from ds2d2_yolo.prepare.registry import PUBLISHED


def list_data() -> str:
    """Return a table of the packaged data YAMLs, followed by the folders of the data sets and of the YAMLs.

    Returns:
        (str): Columns: name, task, number of classes, whether the data exist, and how to get them.
    """
    by_yaml = {p.yaml: p for p in PUBLISHED.values()}
    rows = [("data", "task", "classes", "there", "how to get it")]
    for file in sorted(resource_dir("data").glob("*.yaml")):
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        known = by_yaml.get(file.name)
        folder = Path(content["path"])
        is_present = any((base / folder / content["train"]).is_dir() for base in (Path(), datasets_dir()))
        how = f"ds2d2-yolo data prepare {known.command} source=FOLDER" if known else "drawn on first use, no download"
        task = known.task if known else "obb"  # the built-in scenes
        rows.append((file.name, task, str(len(content["names"])), "yes" if is_present else "no", how))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = ["  ".join([*(c.ljust(w) for c, w in zip(row[:4], widths, strict=True)), row[4]]) for row in rows]
    places = f"folders are looked for under {datasets_dir()}", f"for yolo: data={resource_dir('data') / 'NAME'}"
    return "\n".join([*lines, *places])
