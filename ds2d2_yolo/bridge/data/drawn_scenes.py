"""The packaged data sets that are drawn, not downloaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ultralytics.utils import YAML

from ds2d2_yolo.bridge.data.dota_tiles import datasets_dir
from ds2d2_yolo.config.resources import resource_dir
from ds2d2_yolo.scenes import write_dataset


def draw_packaged_scenes(data: str, progress: Callable[[int, int], None]) -> None:
    """Draw the scenes of a packaged data YAML where Ultralytics looks for them, unless they exist.

    Ultralytics would draw them too, by the YAML's `download:`, without a report of the progress.

    Args:
        data (str): Data-set YAML; nothing is done for one that is not packaged or has no `scenes:`.
        progress (Callable[[int, int], None]): Called with the number of drawn images and of all.
    """
    file = Path(data).resolve()
    if file.parent != resource_dir("data").resolve():
        return
    content = YAML.load(file)
    folder = Path(content["path"])
    root = datasets_dir() / folder
    if "scenes" in content and not folder.exists() and not root.exists():
        write_dataset(root, **content["scenes"], progress=progress)
