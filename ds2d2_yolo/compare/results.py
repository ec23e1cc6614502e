"""Raw results: one row for each run, checkpoint and object group, in the CSV file that all tables are computed from."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

from ds2d2_yolo.errors import BadUseError
from ds2d2_yolo.utils.tables import write_csv


@dataclass(frozen=True)
class RunResult:
    """A row of the raw results; the fields are the columns of the CSV file, in this order.

    Attributes:
        arm (str): Name of the arm.
        seed (int): Seed; -1 for the teacher, which is measured once.
        data (str): Folder and name of the data YAML.
        teacher (str): Folder and name of the teacher.
        student (str): Folder and name of the student.
        imgsz (int): Image size in pixels.
        epochs (int): Epochs of the schedule.
        weights (str): 'last' (the average at the end), 'best' (chosen on the measured split), or 'file' (the teacher).
        by (str): Property that objects are grouped by: 'all' (none), 'size', 'crowding', 'orientation' or 'class'.
        group (str): Name of the group.
        map50 (float): mAP at IoU 0.5, 0 to 1.
        map50_95 (float): Mean of mAP at IoU 0.5, 0.55, ... 0.95.
        images (int): Measured images.
        objects (int): Objects of the group.
        epochs_trained (int): Trained epochs, fewer than `epochs` after an early stop.
        train_seconds (float): Seconds of training, without validation and without the amplifier's training.
        amplifier_seconds (float): Seconds of the amplifier's training, or of the labelling for `pseudo_labels`, which
            runs share; 0 for a stored amplifier.
        step_seconds (float): Seconds of a step in the median epoch.
        peak_memory_mb (float): Peak memory in MB, of tensors on a GPU, otherwise of the process.
        parallel (int): Largest number of runs that were allowed at the same time, this one included.
        sessions (int): Number of sessions, 1 for a run that was not interrupted.
        initial_weights (str): Hash of the student's initial weights.
        first_epoch (str): Hash of the first epoch's data in their order.
        hardware (str): Processor or GPU.
        versions (str): Package versions.
        revision (str): Source revision of this package, '' outside a git checkout.
        finished (str): Date and time, UTC.
        settings (str): Settings of the arm, as JSON.
        settings_hash (str): Hash of everything that the result depends on except the seed.
        data_hash (str): Hash of the training split.
        teacher_hash (str): Hash of the teacher's weights.
        student_hash (str): Hash of the student's architecture, and of its weights if it is a checkpoint.
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


COLUMNS = tuple(f.name for f in fields(RunResult))
TYPES: dict[str, Any] = get_type_hints(RunResult)


def read_results(file: Path) -> list[RunResult]:
    """Read raw results.

    Args:
        file (Path): The CSV file. Unknown columns are ignored; columns that have a default may be missing.

    Returns:
        (list[RunResult]): Its rows.

    Raises:
        BadUseError: If the file is missing or does not have this form.
    """
    try:
        table = list(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8"))))
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise BadUseError(f"results={file} cannot be read: {str(e).splitlines()[0]}") from e
    rows = []
    for number, line in enumerate(table, start=2):
        try:
            rows.append(RunResult(**{k: TYPES[k](v) for k, v in line.items() if k in TYPES and v is not None}))
        except (TypeError, ValueError) as e:
            error = str(e).removeprefix("RunResult.__init__() ")
            raise BadUseError(f"results={file}, line {number}, holds no result: {error}") from e
    if not rows:
        raise BadUseError(f"results={file} holds no result")
    return rows


def write_results(file: Path, rows: Iterable[RunResult]) -> None:
    """Write raw results atomically.

    Args:
        file (Path): The CSV file.
        rows (Iterable[RunResult]): Its rows.
    """
    write_csv(file, COLUMNS, map(astuple, rows))


def add_results(file: Path, rows: Sequence[RunResult], arms: Iterable[str] = ()) -> None:
    """Add the rows of a run to raw results, which are sorted by seed and then by arm.

    They replace earlier rows of the same run.

    Args:
        file (Path): The CSV file, existing or not.
        rows (Sequence[RunResult]): All rows of one run.
        arms (Iterable[str]): Order of the arms; arms that it lacks follow in the order of the rows.
    """
    runs = {(row.arm, row.seed) for row in rows}
    earlier = read_results(file) if file.is_file() else []
    order = list(dict.fromkeys([*arms, *(row.arm for row in (*earlier, *rows))]))
    others = [row for row in earlier if (row.arm, row.seed) not in runs]
    write_results(file, sorted([*others, *rows], key=lambda row: (row.seed, order.index(row.arm))))
