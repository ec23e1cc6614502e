"""Conversion of published data sets into the YOLO layout: `prepare`, and their table, `list_data`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ds2d2_yolo.prepare.result import Prepared

__all__ = ["list_data", "prepare"]


def prepare(dataset: str, **keys: Any) -> Prepared:
    """Convert a published data set into the YOLO layout; see `ds2d2_yolo.prepare.run.prepare`.

    Args:
        dataset (str): 'dota', 'dior', 'dior-r' or 'hit-uav'.
        **keys (Any): Options of `ds2d2_yolo.prepare.options.PrepareOptions`.

    Returns:
        (Prepared): Counts and paths; its text is the summary table.
    """
    from ds2d2_yolo.prepare.run import prepare as run  # the help reads the options without these imports

    return run(dataset, **keys)


def list_data() -> str:
    """Return a table of the packaged data YAMLs: task, classes, whether the data exist, how to get them."""
    from ds2d2_yolo.prepare.listing import list_data as listed

    return listed()
