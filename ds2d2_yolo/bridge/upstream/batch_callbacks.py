"""Ultralytics callbacks that count the batches of a training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Callbacks = Mapping[str, Callable[[Any], None]]


def batch_callbacks(total: Callable[[int], None], advance: Callable[[], None]) -> Callbacks:
    """Return callbacks that report the progress of a training in batches.

    Args:
        total (Callable[[int], None]): Called once with the number of batches of all remaining epochs.
        advance (Callable[[], None]): Called after each batch.

    Returns:
        (Callbacks): Functions by the name of Ultralytics' (8.4.190) event; each takes the trainer.
    """

    def started(trainer: Any) -> None:
        total(len(trainer.train_loader) * (trainer.epochs - trainer.start_epoch))

    def batch_ended(_: Any) -> None:
        advance()

    return {"on_train_start": started, "on_train_batch_end": batch_ended}


def add_callbacks(model: Any, callbacks: Callbacks | None) -> None:
    """Add callbacks to a model, which hands them to its training.

    Args:
        model (Any): Ultralytics `YOLO`.
        callbacks (Callbacks | None): Functions by event.
    """
    for event, function in (callbacks or {}).items():
        model.add_callback(event, function)
