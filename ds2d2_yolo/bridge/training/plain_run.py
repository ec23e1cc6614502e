"""Training of a plain model by Ultralytics alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ultralytics import YOLO
from ultralytics.nn.tasks import torch_safe_load


def trained_epochs(last: Path) -> int | None:
    """Return how many epochs a run's last.pt has behind it.

    Args:
        last (Path): The file, existing or not.

    Returns:
        (int | None): The number; -1 when the run is finished and its files are stripped; None if there is no file
            that can be read, as after a kill in the middle of a write.
    """
    if not last.is_file():
        return None
    try:
        epoch = int(torch_safe_load(last)[0]["epoch"])  # heeds ULTRALYTICS_SAFE_LOAD
    except Exception:  # unpickling half a file can raise anything
        return None
    return epoch if epoch < 0 else epoch + 1


def train_plain(model: str, keys: Mapping[str, Any]) -> None:
    """Train a model with Ultralytics alone.

    Args:
        model (str): Model YAML.
        keys (Mapping[str, Any]): Ultralytics training settings.
    """
    YOLO(model).train(**keys)


def resume_plain(last: Path, device: Any) -> None:
    """Go on with an unfinished training of Ultralytics alone; its own settings stand."""
    YOLO(str(last)).train(resume=True, device=device)
