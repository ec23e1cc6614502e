"""Data sets as published, turned into what Ultralytics trains from: `prepare` and the list of them, `list_data`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ds2d2_yolo.prepare.result import Prepared

__all__ = ["list_data", "prepare"]


def prepare(dataset: str, **keys: Any) -> Prepared:
    """Turn a data set as published into YOLO layout; see `ds2d2_yolo.prepare.run.prepare`.

    Args:
        dataset (str): 'dota', 'dior', 'dior-r' or 'hit-uav'.
        **keys (Any): The options of `ds2d2_yolo.prepare.options.PrepareOptions`.

    Returns:
        (Prepared): Counts and places; `str()` of it is the summary table.
    """
    from ds2d2_yolo.prepare.run import prepare as run  # the options are read without what this loads

    return run(dataset, **keys)


def list_data() -> str:
    """Return a table of the packaged data YAMLs: task, classes, whether the folder is there, how to get it."""
    from ds2d2_yolo.prepare.listing import list_data as listed

    return listed()
