"""Unlabelled images of a run before it begins: checked, selected, and refused where they cannot work."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ds2d2_yolo.bridge.data.unlabelled.selection import UnlabelledImages, select_unlabelled
from ds2d2_yolo.bridge.data.unlabelled.sources import resolve_sources
from ds2d2_yolo.config.batch_parts import BatchParts
from ds2d2_yolo.config.settings import Settings
from ds2d2_yolo.errors import BadUseError


def prepare_unlabelled(
    settings: Settings, data: Mapping[str, Any], args: Namespace
) -> tuple[Settings, UnlabelledImages | None]:
    """Select the unlabelled images of a run.

    Args:
        settings (Settings): DS2D2 settings.
        data (Mapping[str, Any]): The data set as `check_det_dataset` returns it.
        args (Namespace): Ultralytics' settings.

    Returns:
        settings (Settings): With absolute paths; unchanged without unlabelled images.
        images (UnlabelledImages | None): The images, None without `unlabelled=`.

    Raises:
        BadUseError: If the images or the settings cannot work.
    """
    sources = resolve_sources(settings.unlabelled, data)
    if sources is None:
        return settings, None
    if args.rect:
        raise BadUseError("rect=True gives each batch a shape of its own, unlabelled= needs one: leave rect= out")
    processes = len(str(args.device or "").split(","))
    if args.batch >= 1:
        BatchParts.of(int(args.batch), settings.unlabelled_share, processes)
    return replace(settings, unlabelled=sources), select_unlabelled(sources, data, args)
