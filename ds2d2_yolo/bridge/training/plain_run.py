"""Training with plain Ultralytics, without distillation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ultralytics import YOLO
from ultralytics.nn.tasks import torch_safe_load

from ds2d2_yolo.bridge.upstream.batch_callbacks import Callbacks, add_callbacks


def trained_epochs(last: Path) -> int | None:
    """Return the number of finished epochs of a run.

    Args:
        last (Path): Its last.pt, existing or not.

    Returns:
        (int | None): The number; -1 if the run is finished and its files are stripped; None if there is no readable
            file, as after a kill during a write.
    """
    if not last.is_file():
        return None
    try:
        epoch = int(torch_safe_load(last)[0]["epoch"])  # respects ULTRALYTICS_SAFE_LOAD
    except Exception:  # unpickling half a file can raise anything
        return None
    return epoch if epoch < 0 else epoch + 1


def train_plain(model: str, keys: Mapping[str, Any], callbacks: Callbacks | None = None) -> None:
    """Train a model with plain Ultralytics.

    Args:
        model (str): Model YAML.
        keys (Mapping[str, Any]): Ultralytics training settings.
        callbacks (Callbacks | None): Ultralytics callbacks by event.
    """
    plain = YOLO(model)
    add_callbacks(plain, callbacks)
    plain.train(**keys)


def resume_plain(last: Path, device: Any, callbacks: Callbacks | None = None) -> None:
    """Continue an unfinished training with the settings that it was started with.

    Args:
        last (Path): Its last.pt.
        device (Any): Device as Ultralytics takes it, None for its choice.
        callbacks (Callbacks | None): Ultralytics callbacks by event.
    """
    plain = YOLO(str(last))
    add_callbacks(plain, callbacks)
    plain.train(resume=True, device=device)
