"""The Python entrance: `distill`, which the command line calls too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ultralytics import YOLO
from ultralytics.cfg import get_cfg
from ultralytics.utils import DEFAULT_CFG_KEYS
from ultralytics.utils.checks import check_model_file_from_stem

from ds2d2_yolo.bridge.heads import dense_head
from ds2d2_yolo.bridge.resume import find_unfinished
from ds2d2_yolo.bridge.trainer import DS2D2OBBTrainer, DS2D2Trainer
from ds2d2_yolo.errors import BadUseError
from ds2d2_yolo.settings import Settings, check_keys

TRAINERS = {"detect": DS2D2Trainer, "obb": DS2D2OBBTrainer}
NOT_OURS = {"model": "student=", "mode": "the mode's own word", "task": "the student's own task"}


def distill(teacher: str | Path | None = None, student: str | Path | None = None, data: str | Path | None = None,
            **keys: Any) -> Any:  # fmt: skip
    """Distil a teacher into a student.

    Args:
        teacher (str | Path | None): Trained checkpoint, or a release's name that Ultralytics downloads.
        student (str | Path | None): Checkpoint, release's name or model YAML of the same task.
        data (str | Path | None): Data-set YAML; the names of the package's own work too, such as 'dota.yaml'.
        **keys (Any): DS2D2 settings (see `Settings`) and Ultralytics training settings, `resume` among them.

    Returns:
        (Any): Ultralytics' metrics of the best student.

    Raises:
        BadUseError: If anything does not fit, before training begins.

    Examples:
        >>> from ds2d2_yolo import distill
        >>> distill("teacher.pt", "yolov8n-obb.yaml", "hit-uav.yaml", epochs=100, imgsz=640)  # doctest: +SKIP
    """
    check_keys([k for k in keys if k not in NOT_OURS], {*Settings.keys(), *DEFAULT_CFG_KEYS, "student"})
    wrong = [f"{k}= is {said} here" for k, said in NOT_OURS.items() if k in keys]
    if wrong:
        raise BadUseError("; ".join(wrong))
    ours, rest = Settings.split({**keys, "teacher": None if teacher is None else str(teacher)})
    Settings(**ours)  # every wrong value is named before anything is loaded
    _check_theirs(rest)
    resume = rest.pop("resume", None)
    if resume:
        return _resume(resume, {k: v for k, v in ours.items() if v is not None}, student, rest)
    missing = [f"{k}=" for k, v in (("teacher", teacher), ("student", student), ("data", data)) if v is None]
    if missing:
        raise BadUseError(f"{', '.join(missing)} missing: ds2d2-yolo train teacher=T.pt student=S.yaml data=D.yaml")
    model = load_student(str(student))
    return _train(model, TRAINERS[model.task], {**rest, **ours, "data": str(data)})


def _check_theirs(keys: dict[str, Any]) -> None:
    """Let Ultralytics check its own settings now; what it says becomes one line."""
    try:
        get_cfg(overrides=keys)
    except (TypeError, ValueError, SyntaxError) as e:
        raise BadUseError(str(e).strip().splitlines()[0]) from e
    size = keys.get("imgsz", 640)
    if not all(isinstance(n, int) and n > 0 for n in (size if isinstance(size, (list, tuple)) else [size])):
        raise BadUseError(f"imgsz={size} must be a whole number of pixels, such as imgsz=640")


def load_student(name: str) -> YOLO:
    """Return a student as Ultralytics resolves its name; whatever is wrong with it becomes one line.

    Args:
        name (str): Checkpoint, model YAML or a release's name.

    Returns:
        (YOLO): With task 'detect' or 'obb'.

    Raises:
        BadUseError: If it is missing, unreadable or of another task.
    """
    try:
        model = YOLO(str(check_model_file_from_stem(name)))
    except FileNotFoundError as e:
        raise BadUseError(f"student={name} does not exist, and Ultralytics has no release of that name") from e
    except Exception as e:  # unpickling an arbitrary file can raise anything
        first = (str(e).strip().splitlines() or [type(e).__name__])[0]
        raise BadUseError(f"student={name} cannot be read as an Ultralytics model: {first}") from e
    if model.task not in TRAINERS:
        raise BadUseError(f"student={name} is a {model.task} model: DS2D2 distils detect and obb models")
    dense_head(model.model, "student")
    return model


def _resume(resume: Any, ours: dict[str, Any], student: str | Path | None, rest: dict[str, Any]) -> Any:
    """Continue an unfinished run; its own settings stand, and the teacher is checked against the one it began with."""
    named = student is not None and resume is True
    run = find_unfinished(resume, rest, (load_student(str(student)).task,) if named else tuple(TRAINERS))
    allowed = {k: v for k, v in rest.items() if k not in {"project", "name", "exist_ok", "save_dir"}}
    return _train(YOLO(str(run.last)), TRAINERS[run.task], {**allowed, **ours, "resume": str(run.last)})


def _train(model: YOLO, trainer: type[DS2D2Trainer], keys: dict[str, Any]) -> Any:
    """Run Ultralytics' training with one of our trainers."""
    return model.train(trainer=trainer, **keys)
