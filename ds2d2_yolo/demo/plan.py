"""What a demonstration trains, and for how long: two public sizes, and the settings that a person gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ds2d2_yolo.errors import BadUseError
from ds2d2_yolo.options import check_keys


@dataclass(frozen=True)
class DemoPlan:
    """What a demonstration trains.

    Attributes:
        data (str): Data set, unless the person names another.
        teacher (str): Model YAML of the teacher.
        student (str): Model YAML of both students.
        teacher_epochs (int): Epochs of the teacher.
        student_epochs (int): Epochs of each student.
        amplifier_epochs (int): Epochs of the high-frequency amplifier.
        imgsz (int): Image size of all trainings, measurements and of the export, in pixels.
        batch (int): Images per batch.
        images (int | None): Largest number of training images, None for all.
        duration (str): How long it takes, in words.
        verdict (str): What the table may be read as.
        common (Mapping[str, Any]): Further Ultralytics settings of all trainings.
        confidence (float): Smallest confidence of the boxes in the picture.
        workers (int): Processes that load images.
    """

    data: str
    teacher: str
    student: str
    teacher_epochs: int
    student_epochs: int
    amplifier_epochs: int
    imgsz: int
    batch: int
    images: int | None
    duration: str
    verdict: str
    common: Mapping[str, Any] = field(default_factory=dict)
    confidence: float = 0.25
    workers: int = 8


SMALL = DemoPlan(
    data="aerial-scenes.yaml",
    teacher="yolov8s-obb.yaml",
    student="yolov8n-obb.yaml",
    teacher_epochs=8,
    student_epochs=4,
    amplifier_epochs=1,
    imgsz=320,
    batch=4,
    images=256,
    duration="about 10 minutes on 2 CPU cores",
    verdict=(
        "So short a run shows the mechanics, not the gain: both students have only begun to learn, and their "
        "difference says nothing about the method."
    ),
    common={
        "optimizer": "AdamW",
        "lr0": 0.002,
        "nbs": 4,
        "warmup_epochs": 1.0,
        "mosaic": 0.0,
        "scale": 0.2,
        "val": False,
        "plots": False,
        # so young a model has thousands of faint boxes in a dense scene; their suppression would take minutes
        "conf": 0.03,
    },
    confidence=0.1,  # nothing is sure of itself after so short a training
    workers=2,
)

FULL = DemoPlan(
    data="aerial-scenes-large.yaml",
    teacher="yolov8m-obb.yaml",
    student="yolov8n-obb.yaml",
    teacher_epochs=100,
    student_epochs=100,
    amplifier_epochs=20,
    imgsz=640,
    batch=16,
    images=None,
    duration="several hours on one GPU",
    verdict="One seed on drawn scenes: an impression of the gain. A proof needs more seeds, and photographs.",
    common={"patience": 0, "plots": True},
)

PLANS: dict[str, DemoPlan] = {"small": SMALL, "full": FULL}


@dataclass(frozen=True)
class DemoSettings:
    """What a person can set, validated when made.

    Attributes:
        size (str): 'small' (minutes on a CPU) or 'full' (hours on a GPU).
        data (str | None): Data-set YAML with oriented boxes instead of the built-in scenes.
        project (str): Folder of the run's folder.
        name (str | None): Name of the run's folder; None is the size.
        device (str | int | None): One device as Ultralytics takes it; None lets it choose.
        seed (int): Seed of all trainings.
        batch (int | None): Images per batch; None is the plan's own.
        verbose (bool): Whether the command line shows tracebacks.
        resume (bool): Accepted for habit's sake: the same command goes on anyway.

    Raises:
        BadUseError: If any value is wrong; all of them are named in one line.
    """

    size: str = "small"
    data: str | None = None
    project: str = "runs/demo"
    name: str | None = None
    device: str | int | None = None
    seed: int = 0
    batch: int | None = None
    verbose: bool = False
    resume: bool = False

    def __post_init__(self) -> None:
        """Check every value and report all that are wrong together."""
        wrong = []
        if self.size not in PLANS:
            wrong.append(f"size={self.size} must be one of {', '.join(PLANS)}")
        texts = (("data", self.data), ("project", self.project), ("name", self.name))
        wrong += [f"{k}={v!r} must be a path" for k, v in texts if v is not None and not _is_path(v)]
        one = isinstance(self.device, (str, int)) and not isinstance(self.device, bool) and "," not in str(self.device)
        if self.device is not None and not one:
            wrong.append(f"device={self.device} must be one device: cpu, mps, or the number of a GPU")
        if not _is_whole(self.seed, 0):
            wrong.append(f"seed={self.seed} must be a whole number of at least 0")
        if self.batch is not None and not _is_whole(self.batch, 1):
            wrong.append(f"batch={self.batch} must be a whole number of at least 1")
        if wrong:
            raise BadUseError("; ".join(wrong))

    @classmethod
    def of(cls, keys: Mapping[str, Any]) -> DemoSettings:
        """Return the settings of a command, unknown keys refused."""
        check_keys(dict(keys), set(cls.__dataclass_fields__), "demo")
        return cls(**keys)

    @property
    def folder(self) -> Path:
        """(Path): The run's folder, absolute: Ultralytics would put a relative one elsewhere."""
        return Path(self.project, self.name or self.size).expanduser().resolve()


def fingerprint(plan: DemoPlan, settings: DemoSettings, data_hash: str) -> dict[str, Any]:
    """Return all that the results of a demonstration depend on, as JSON keeps it.

    Args:
        plan (DemoPlan): What is trained.
        settings (DemoSettings): What the person set.
        data_hash (str): Identity of the data set.

    Returns:
        (dict[str, Any]): Plain values; the device is left out, so that a run can go on elsewhere.
    """
    words = ("duration", "verdict", "workers", "data")
    trained = {k: v for k, v in asdict(plan).items() if k not in words}
    return {**trained, "batch": settings.batch or plan.batch, "seed": settings.seed, "data": data_hash}


def _is_path(value: Any) -> bool:
    """Return whether a value is a non-empty path."""
    return isinstance(value, (str, Path)) and bool(str(value))


def _is_whole(value: Any, least: int) -> bool:
    """Return whether a value is a whole number of at least `least`."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
