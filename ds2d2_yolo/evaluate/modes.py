"""Entry points: `val`, which the command line calls, and `evaluate`, which writes no files."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ds2d2_yolo.errors import BadUseError
from ds2d2_yolo.evaluate.metrics import GroupMetrics, measure_groups
from ds2d2_yolo.evaluate.options import ValOptions
from ds2d2_yolo.evaluate.table import table
from ds2d2_yolo.evaluate.writing import draw, write_csv, write_report

if TYPE_CHECKING:
    from ds2d2_yolo.bridge.validation.validate import Validated

# settings that request files, so that `evaluate` makes a run folder
FILE_SETTINGS = ("save_dir", "project", "name", "save_json", "save_txt", "plots", "visualize")


@dataclass(frozen=True)
class Evaluation:
    """Metrics of a model, in total and by group.

    Attributes:
        rows (tuple[GroupMetrics, ...]): 'all' first, then size, crowding, orientation and class.
        facts (dict[str, Any]): model, task, data, split, imgsz, conf, iou and max_det.
        options (ValOptions): Edges of the groups.
        metrics (Any): Ultralytics' metrics.
        save_dir (Path | None): The run's folder, None if no files were requested.
    """

    rows: tuple[GroupMetrics, ...]
    facts: dict[str, Any]
    options: ValOptions
    metrics: Any
    save_dir: Path | None

    def row(self, by: str, group: str) -> GroupMetrics:
        """Return the metrics of a group.

        Args:
            by (str): 'all', 'size', 'crowding', 'orientation' or 'class'.
            group (str): Name of the group.

        Returns:
            (GroupMetrics): Its metrics.

        Raises:
            KeyError: If the group does not exist.
        """
        for row in self.rows:
            if (row.by, row.group) == (by, group):
                return row
        raise KeyError(f"no group {group!r} by {by!r}: there are {[(r.by, r.group) for r in self.rows]}")

    def __str__(self) -> str:
        """Return the table."""
        return table(self.rows)


def val(**keys: Any) -> Evaluation:
    """Validate a model, in total and by size, crowding and orientation; writes val.csv, val.json and val.png.

    Args:
        **keys (Any): Options of `ValOptions` and Ultralytics' validation settings; model is required.

    Returns:
        (Evaluation): Metrics and the folder of the files.

    Raises:
        BadUseError: If a setting, the model or the data set is invalid, before the first image.
    """
    options, ultralytics_args = _split_keys(keys)
    outcome = _validate(options, ultralytics_args)
    rows = measure_groups(outcome.detections, options)
    evaluation = Evaluation(rows, outcome.facts, options, outcome.metrics, outcome.save_dir)
    _write(evaluation, bool(ultralytics_args.get("plots", True)))
    return evaluation


def evaluate(model: str | Path, data: str | Path, **val_keys: Any) -> Evaluation:
    """Validate a model as `val` does, without files unless a setting requests some.

    Args:
        model (str | Path): Checkpoint, a release's name or an exported model.
        data (str | Path): Data-set YAML.
        **val_keys (Any): As in `val`. Any of save_dir, project, name, save_json, save_txt, visualize and plots makes
            a run folder, with the files of `val` in it.

    Returns:
        (Evaluation): Metrics; save_dir is None without a folder.
    """
    keys = {"plots": False, "verbose": False, **val_keys}
    if any(keys.get(k) for k in FILE_SETTINGS):
        return val(model=model, data=data, **keys)
    options, ultralytics_args = _split_keys({"model": model, "data": data, **keys})
    with tempfile.TemporaryDirectory(prefix="ds2d2-val-") as folder:
        outcome = _validate(options, {**ultralytics_args, "save_dir": folder})
    return Evaluation(measure_groups(outcome.detections, options), outcome.facts, options, outcome.metrics, None)


def _split_keys(keys: dict[str, Any]) -> tuple[ValOptions, dict[str, Any]]:
    """Check the names of all keys and split them into options and Ultralytics' settings."""
    from ds2d2_yolo.bridge.validation.validate import VAL_KEYS

    options = ValOptions.of(keys, "val", passing=VAL_KEYS)
    if options.model is None:
        raise BadUseError("model= missing: ds2d2-yolo val model=best.pt data=D.yaml")
    return options, ValOptions.split(keys)[1]


def _validate(options: ValOptions, ultralytics_args: dict[str, Any]) -> Validated:
    """Run Ultralytics' validation."""
    from ds2d2_yolo.bridge.validation.validate import validate

    return validate(str(options.model), options.data, options.safe, **ultralytics_args)


def _write(evaluation: Evaluation, plot: bool) -> None:
    """Write table, facts and plot into the run's folder."""
    assert evaluation.save_dir is not None
    write_csv(evaluation.save_dir / "val.csv", evaluation.rows)
    facts = {**evaluation.facts, **evaluation.options.as_dict()}
    write_report(evaluation.save_dir / "val.json", evaluation.rows, facts)
    if plot:
        draw(evaluation.save_dir / "val.png", evaluation.rows)
