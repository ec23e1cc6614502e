"""Columns of results.csv for the experiment loggers that Ultralytics supports."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

EVENT = "on_fit_epoch_end"  # at it Ultralytics' (8.4.190) loggers read trainer.metrics


class LoggerColumns:
    """Adds the columns of an epoch to `trainer.metrics` while the callbacks at the end of the epoch run.

    TensorBoard, W&B, MLflow, Comet, ClearML, DVC and Ray Tune log all of `trainer.metrics` there. The columns are taken
    out again, because Ultralytics writes `trainer.metrics` into checkpoints and into the next row of results.csv.

    Args:
        trainer (Any): The trainer.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._columns: dict[str, float] = {}

    def store(self, columns: Mapping[str, float]) -> None:
        """Store the columns of an epoch until its end.

        Args:
            columns (Mapping[str, float]): Values by column of results.csv.
        """
        self._columns = loggable(columns)

    @contextmanager
    def shown(self, event: str) -> Iterator[None]:
        """Show the stored columns once: the callbacks run again after the last epoch, for the best checkpoint.

        Args:
            event (str): Event whose callbacks run inside the context.

        Yields:
            (None): Inside, `trainer.metrics` has the columns.
        """
        columns = self._columns if event == EVENT else {}
        if not columns:
            yield
            return
        self._columns = {}
        trainer = self._trainer
        trainer.metrics = {**trainer.metrics, **columns}
        try:
            yield
        finally:
            trainer.metrics = {k: v for k, v in trainer.metrics.items() if k not in columns}


def loggable(columns: Mapping[str, float]) -> dict[str, float]:
    """Return columns as all loggers take them.

    MLflow refuses names with other characters, and Ultralytics then ends its logging. Values that are not finite are
    left out: ClearML logs them as 0.

    Args:
        columns (Mapping[str, float]): Values by column of results.csv.

    Returns:
        (dict[str, float]): Finite values; letters, digits and `/_-. ` in the names, `_` for any other character.

    Examples:
        >>> loggable({"share/exlo@8": 0.2, "share/exhi": float("nan")})
        {'share/exlo_8': 0.2}
    """
    return {re.sub(r"[^\w/. -]", "_", k, flags=re.ASCII): v for k, v in columns.items() if math.isfinite(v)}
