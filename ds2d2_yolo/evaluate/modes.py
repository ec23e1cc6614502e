"""The entrances: `val`, which the command line calls, and `evaluate`, which leaves no files."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ds2d2_yolo.errors import BadUseError
from ds2d2_yolo.evaluate.metrics import Row, rows_of
from ds2d2_yolo.evaluate.options import ValOptions
from ds2d2_yolo.evaluate.table import table
from ds2d2_yolo.evaluate.writing import draw, write_csv, write_report

if TYPE_CHECKING:
    from ds2d2_yolo.bridge.validation.validate import Validated

# what asks for files, so that `evaluate` leaves a run folder
WRITES = ("save_dir", "project", "name", "save_json", "save_txt", "plots", "visualize")


@dataclass(frozen=True)
class Evaluation:
    """What a model reaches, in the whole and in parts.

    Attributes:
        rows (tuple[Row, ...]): 'all' first, then size, crowding, orientation and class.
        facts (dict[str, Any]): model, task, data, split, imgsz, conf, iou and max_det.
        options (ValOptions): Where the groups begin and end.
        metrics (Any): Ultralytics' own metrics.
        save_dir (Path | None): The run's folder, None where no files were asked for.
    """

    rows: tuple[Row, ...]
    facts: dict[str, Any]
    options: ValOptions
    metrics: Any
    save_dir: Path | None

    def row(self, by: str, group: str) -> Row:
        """Return a row by name.

        Raises:
            KeyError: If there is none.
        """
        for row in self.rows:
            if (row.by, row.group) == (by, group):
                return row
        raise KeyError(f"no group {group!r} by {by!r}: there are {[(r.by, r.group) for r in self.rows]}")

    def __str__(self) -> str:
        """Return the table."""
        return table(self.rows)


def val(**keys: Any) -> Evaluation:
    """Validate a model, in the whole and by size, crowding and orientation; writes val.csv, val.json and val.png.

    Args:
        **keys (Any): model, data, the other options of `ValOptions` and Ultralytics' validation settings.

    Returns:
        (Evaluation): Rows and where the files are.

    Raises:
        BadUseError: If anything does not fit, before the first image.
    """
    options, theirs = _parted(keys)
    outcome = _validate(options, theirs)
    done = Evaluation(rows_of(outcome.detections, options), outcome.facts, options, outcome.metrics, outcome.save_dir)
    _write(done, bool(theirs.get("plots", True)))
    return done


def evaluate(model: str | Path, data: str | Path, **val_keys: Any) -> Evaluation:
    """Validate a model likewise without leaving files, unless a setting asks for some.

    Args:
        model (str | Path): Checkpoint, a release's name or an exported model.
        data (str | Path): Data-set YAML.
        **val_keys (Any): As in `val`. Any of save_dir, project, name, save_json, save_txt, visualize and plots makes
            a run folder, with the files of `val` in it.

    Returns:
        (Evaluation): Rows; save_dir is None where there is no folder.
    """
    keys = {"plots": False, "verbose": False, **val_keys}
    if any(keys.get(k) for k in WRITES):
        return val(model=model, data=data, **keys)
    options, theirs = _parted({"model": model, "data": data, **keys})
    with tempfile.TemporaryDirectory(prefix="ds2d2-val-") as folder:
        outcome = _validate(options, {**theirs, "save_dir": folder})
    return Evaluation(rows_of(outcome.detections, options), outcome.facts, options, outcome.metrics, None)


def _parted(keys: dict[str, Any]) -> tuple[ValOptions, dict[str, Any]]:
    """Check the names of all keys and part ours from Ultralytics'."""
    from ds2d2_yolo.bridge.validation.validate import VAL_KEYS

    options = ValOptions.of(keys, "val", passing=VAL_KEYS)
    if options.model is None:
        raise BadUseError("model= missing: ds2d2-yolo val model=best.pt data=D.yaml")
    return options, ValOptions.split(keys)[1]


def _validate(options: ValOptions, theirs: dict[str, Any]) -> Validated:
    """Run Ultralytics' validation."""
    from ds2d2_yolo.bridge.validation.validate import validate

    return validate(str(options.model), options.data, options.safe, **theirs)


def _write(done: Evaluation, plot: bool) -> None:
    """Write table, facts and plot into the run's folder."""
    assert done.save_dir is not None
    write_csv(done.save_dir / "val.csv", done.rows)
    write_report(done.save_dir / "val.json", done.rows, {**done.facts, **done.options.as_dict()})
    if plot:
        draw(done.save_dir / "val.png", done.rows)
