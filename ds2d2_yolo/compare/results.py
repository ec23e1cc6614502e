"""Raw results: one row for each run, checkpoint and group of objects, in one CSV that all tables are made of."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

from ds2d2_yolo.errors import BadUseError
from ds2d2_yolo.utils.atomic_files import write_whole


@dataclass(frozen=True)
class Result:
    """A row of the raw results; the fields are the CSV's columns, in this order.

    Attributes:
        arm (str): Name of the arm.
        seed (int): Seed; -1 for the teacher, which is measured once.
        data (str): Data YAML, its folder and name.
        teacher (str): Teacher, likewise.
        student (str): Student, likewise.
        imgsz (int): Image size in pixels.
        epochs (int): Epochs of the schedule.
        weights (str): 'last' (the average at the end), 'best' (chosen on the measured split), or 'file' (the teacher).
        by (str): What objects are split by: 'all' (not at all), 'size', 'crowding', 'orientation' or 'class'.
        group (str): The part.
        map50 (float): mAP at IoU 0.5, 0 to 1.
        map50_95 (float): Mean of mAP at IoU 0.5, 0.55, ... 0.95.
        images (int): Measured images.
        objects (int): Objects of the part.
        epochs_trained (int): Epochs that were run; fewer than `epochs` after an early stop.
        train_seconds (float): Seconds of training, without validation and without the amplifier's training.
        amplifier_seconds (float): Seconds of the amplifier's training, which runs share; 0 for one that was kept.
        step_seconds (float): Seconds of a step in the median epoch.
        peak_memory_mb (float): Most memory in MB, of tensors on a GPU, else of the process.
        parallel (int): Most runs that were allowed at the same time as this one, itself included.
        sessions (int): 1 for a run that was never cut off.
        initial_weights (str): Hash of the student's first weights.
        first_epoch (str): Hash of the first epoch's data in their order.
        hardware (str): What it ran on.
        versions (str): Of the packages.
        revision (str): Of this package's source, where that is a git checkout.
        finished (str): Day and time, UTC.
        settings (str): The arm's own settings, as JSON.
        settings_hash (str): Of all that the result depends on but the seed.
        data_hash (str): Of the training split.
        teacher_hash (str): Of the teacher's weights.
        student_hash (str): Of the student's architecture, and of its weights where it comes with some.
    """

    arm: str
    seed: int
    data: str
    teacher: str
    student: str
    imgsz: int
    epochs: int
    weights: str
    by: str
    group: str
    map50: float
    map50_95: float
    images: int
    objects: int
    epochs_trained: int = 0
    train_seconds: float = 0.0
    amplifier_seconds: float = 0.0
    step_seconds: float = 0.0
    peak_memory_mb: float = 0.0
    parallel: int = 1
    sessions: int = 1
    initial_weights: str = ""
    first_epoch: str = ""
    hardware: str = ""
    versions: str = ""
    revision: str = ""
    finished: str = ""
    settings: str = "{}"
    settings_hash: str = ""
    data_hash: str = ""
    teacher_hash: str = ""
    student_hash: str = ""


COLUMNS = tuple(f.name for f in fields(Result))
TYPES: dict[str, Any] = get_type_hints(Result)


def read_results(file: Path) -> list[Result]:
    """Read raw results.

    Args:
        file (Path): The CSV. Columns that are not known are left alone, those that have a default may lack.

    Returns:
        (list[Result]): Its rows.

    Raises:
        BadUseError: If it is missing or not of this form.
    """
    try:
        table = list(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8"))))
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise BadUseError(f"results={file} cannot be read: {str(e).splitlines()[0]}") from e
    rows = []
    for number, line in enumerate(table, start=2):
        try:
            rows.append(Result(**{k: TYPES[k](v) for k, v in line.items() if k in TYPES and v is not None}))
        except (TypeError, ValueError) as e:
            said = str(e).removeprefix("Result.__init__() ")
            raise BadUseError(f"results={file}, line {number}, holds no result: {said}") from e
    if not rows:
        raise BadUseError(f"results={file} holds no result")
    return rows


def write_results(file: Path, rows: Iterable[Result]) -> None:
    """Write raw results, the file whole or not at all."""
    write_csv(file, COLUMNS, [asdict(row) for row in rows])


def add_results(file: Path, rows: Sequence[Result], arms: Iterable[str] = ()) -> None:
    """Add the rows of a run to raw results, in the place of rows that this run had before; sorted by seed, then arm.

    Args:
        file (Path): The CSV, there or not.
        rows (Sequence[Result]): All rows of one run.
        arms (Iterable[str]): Order of the arms; those that it lacks come behind, as they stand in the file.
    """
    runs = {(row.arm, row.seed) for row in rows}
    before = read_results(file) if file.is_file() else []
    order = list(dict.fromkeys([*arms, *(row.arm for row in (*before, *rows))]))
    kept = [row for row in before if (row.arm, row.seed) not in runs]
    write_results(file, sorted([*kept, *rows], key=lambda row: (row.seed, order.index(row.arm))))


def write_csv(file: Path, columns: Sequence[str], table: Iterable[dict[str, Any]]) -> None:
    """Write a table as CSV, whole or not at all; None becomes an empty cell."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    write_whole(file, text.getvalue())
