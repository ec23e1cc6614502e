"""The Python entrance: `distill`, which the command line calls too."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Any

from torch import nn
from ultralytics import YOLO
from ultralytics.cfg import get_cfg
from ultralytics.utils import DEFAULT_CFG_KEYS, LOGGER, YAML
from ultralytics.utils.checks import check_model_file_from_stem, check_yaml
from ultralytics.utils.torch_utils import unset_deterministic

from ds2d2_yolo import settings_checks as ok
from ds2d2_yolo.bridge.adapters import ARGS_KEY
from ds2d2_yolo.bridge.heads import dense_head, refuse_yaml
from ds2d2_yolo.bridge.plain import check_device, cpu_threads
from ds2d2_yolo.bridge.resume import find_unfinished
from ds2d2_yolo.bridge.safety import first_line, is_safe, refuse_activation, refuse_code, safe_loading
from ds2d2_yolo.bridge.trainer import DS2D2OBBTrainer, DS2D2Trainer
from ds2d2_yolo.errors import BadUseError
from ds2d2_yolo.options import check_keys
from ds2d2_yolo.recipes import resolve_settings
from ds2d2_yolo.report_facts import Report
from ds2d2_yolo.settings import Settings

TRAINERS = {"detect": DS2D2Trainer, "obb": DS2D2OBBTrainer}
# of Ultralytics 8.4.190, which looks at the name when the first epoch begins, and takes it in any case
OPTIMIZERS = ("adam", "adamax", "adamw", "nadam", "radam", "rmsprop", "sgd", "musgd", "auto")
NOT_OURS = {"model": "student=", "mode": "the mode's own word", "task": "the student's own task"}


@cpu_threads()
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
    resume = keys.get("resume")
    settings, ours, rest = _checked({**keys, "teacher": teacher and str(teacher)})
    with safe_loading(settings.safe):
        if resume:
            rest.pop("resume")
            if data is not None:  # a data set that has moved
                rest["data"] = str(data)
            return _resume(resume, {k: v for k, v in ours.items() if v is not None}, student, rest, settings.safe)
        _refuse_missing("train", teacher=teacher, student=student, data=data)
        if settings.safe:
            refuse_code(str(data))
        model = load_student(str(student))
        return _train(model, TRAINERS[model.task], {**rest, **ours, "data": str(data)})


@cpu_threads()
def check(teacher: str | Path | None = None, student: str | Path | None = None, data: str | Path | None = None,
          **keys: Any) -> Report:  # fmt: skip
    """Return the report of a run, as it stands before the first epoch; nothing is trained.

    No file is left but the label caches that Ultralytics keeps beside the data.

    Args:
        teacher (str | Path | None): As in `distill`.
        student (str | Path | None): As in `distill`.
        data (str | Path | None): As in `distill`.
        **keys (Any): As in `distill`, without `resume`.

    Returns:
        (Report): What the run would do.

    Raises:
        BadUseError: If anything does not fit.
    """
    if keys.get("cfg"):
        raise BadUseError("cfg= is read by a training only: give its settings to 'check' themselves")
    if keys.get("resume"):
        raise BadUseError("resume= has no meaning here: a run that goes on kept its report in its folder")
    settings, ours, rest = _checked({**keys, "teacher": teacher and str(teacher)})
    _refuse_missing("check", teacher=teacher, student=student, data=data)
    with safe_loading(settings.safe):
        if settings.safe:
            refuse_code(str(data))
        return _report(load_student(str(student)), {**rest, **ours, "data": str(data)})


def _report(model: YOLO, keys: dict[str, Any]) -> Report:
    """Return the report of a run with this student."""
    kind = TRAINERS[model.task]
    quiet = type(kind.__name__, (kind,), {"run_callbacks": lambda *_: None})  # experiment trackers open no run
    level = LOGGER.level
    LOGGER.setLevel(logging.WARNING)  # not the list of all arguments
    try:
        with tempfile.TemporaryDirectory() as folder:
            place = {"mode": "train", "save_dir": folder, "exist_ok": True}
            trainer: DS2D2Trainer = quiet(overrides={**model.overrides, **keys, **place})
            return trainer.report()
    finally:
        unset_deterministic()  # the trainer's own, as Ultralytics does at the end of a training
        LOGGER.setLevel(level)


def _checked(keys: dict[str, Any]) -> tuple[Settings, dict[str, Any], dict[str, Any]]:
    """Check names and values of all keys before anything is loaded, and part ours from Ultralytics'."""
    check_keys([k for k in keys if k not in NOT_OURS], {*Settings.keys(), *DEFAULT_CFG_KEYS, "student"})
    wrong = [f"{k}= is {said} here" for k, said in NOT_OURS.items() if k in keys]
    if wrong:
        raise BadUseError("; ".join(wrong))
    ours, rest = Settings.split(keys)
    settings = resolve_settings(ours)
    check_theirs(rest)
    check_device(rest.get("device"))
    return settings, ours, rest


def _refuse_missing(mode: str, **needed: Any) -> None:
    """Refuse a command without the models and data that it needs."""
    missing = [f"{k}=" for k, v in needed.items() if v is None]
    if missing:
        raise BadUseError(f"{', '.join(missing)} missing: ds2d2-yolo {mode} teacher=T.pt student=S.yaml data=D.yaml")
    wrong = [f"{k}={v!r} {said}" for k, v in needed.items() if (said := ok.path(v))]
    if wrong:
        raise BadUseError("; ".join(wrong))


def check_theirs(keys: dict[str, Any]) -> None:
    """Let Ultralytics check its own settings now; what it says becomes one line."""
    if keys.get("cfg"):
        _check_cfg(str(keys["cfg"]))
    try:
        get_cfg(overrides=keys)
    except (TypeError, ValueError, SyntaxError) as e:
        raise BadUseError(first_line(e)) from e
    size = keys.get("imgsz", 640)
    if not all(isinstance(n, int) and n > 0 for n in (size if isinstance(size, (list, tuple)) else [size])):
        raise BadUseError(f"imgsz={size} must be a whole number of pixels, such as imgsz=640")
    classes = keys.get("classes")
    wanted = classes if isinstance(classes, (list, tuple)) else [] if classes is None else [classes]
    if any(not isinstance(c, int) or isinstance(c, bool) for c in wanted):
        raise BadUseError(f"classes={classes} must be numbers of classes, such as classes=0,2")
    batch, workers, optimizer = keys.get("batch", 16), keys.get("workers", 8), keys.get("optimizer", "auto")
    if not (batch == -1 or 0 < batch < 1 or (isinstance(batch, int) and batch >= 1)):
        raise BadUseError(f"batch={batch} must be a number of images, -1, or a share of the GPU's memory under 1")
    if workers < 0:
        raise BadUseError(f"workers={workers} must be a whole number of at least 0")
    if str(optimizer).lower() not in OPTIMIZERS:
        raise BadUseError(f"optimizer={optimizer} {ok.one_of(*OPTIMIZERS)(str(optimizer).lower())}")


def _check_cfg(cfg: str) -> None:
    """Refuse a YAML of Ultralytics' settings that holds none, or wrong ones; ours may be among them."""
    try:
        found = YAML.load(check_yaml(cfg))
        get_cfg(overrides={k: v for k, v in Settings.split(found)[1].items() if k != ARGS_KEY})  # of a run's args.yaml
    except (TypeError, ValueError, SyntaxError, AssertionError, OSError) as e:
        raise BadUseError(f"cfg={cfg} cannot be read as a YAML of settings: {first_line(e)}") from e
    if not found:
        raise BadUseError(f"cfg={cfg} holds no settings: one 'key: value' a line is expected")


def load_student(name: str) -> YOLO:
    """Return a student as Ultralytics resolves its name; whatever is wrong with it becomes one line.

    Args:
        name (str): Checkpoint, model YAML or a release's name.

    Returns:
        (YOLO): With task 'detect' or 'obb'.

    Raises:
        BadUseError: If it is missing, unreadable or of a kind that is not distilled, such as RT-DETR.
    """
    if name.lower().endswith((".yaml", ".yml")):
        refuse_yaml(name, f"student={name}")
    try:
        model = YOLO(str(check_model_file_from_stem(name)))
    except FileNotFoundError as e:
        raise BadUseError(f"student={name} does not exist, and Ultralytics has no release of that name") from e
    except Exception as e:  # unpickling an arbitrary file can raise anything
        raise BadUseError(f"student={name} cannot be read as an Ultralytics model: {first_line(e)}") from e
    if not isinstance(model.model, nn.Module):
        raise BadUseError(f"student={name} is an exported model: name a checkpoint (.pt) or a model YAML")
    dense_head(model.model, f"student={name}")
    if is_safe():
        refuse_activation(model.model, f"student={name}")
    return model


def _resume(
    resume: Any, ours: dict[str, Any], student: str | Path | None, rest: dict[str, Any], safe: bool = False
) -> Any:
    """Continue an unfinished run; its own settings stand, and the teacher is checked against the one it began with."""
    named = student is not None and resume is True
    run = find_unfinished(resume, rest, (load_student(str(student)).task,) if named else tuple(TRAINERS))
    allowed = {k: v for k, v in rest.items() if k not in {"project", "name", "exist_ok", "save_dir"}}
    model = YOLO(str(run.last))
    if safe:
        refuse_code(str(allowed.get("data") or model.overrides.get("data")))
    ours.pop("safe", None)  # it is the command's, not the run's
    if run.last.parent.name == "weights":  # a run goes on where it lies now, its checkpoint knows where it began
        allowed["save_dir"] = str(run.last.parent.parent)
    return _train(model, TRAINERS[run.task], {**allowed, **ours, "resume": str(run.last)})


def _train(model: YOLO, trainer: type[DS2D2Trainer], keys: dict[str, Any]) -> Any:
    """Run Ultralytics' training with one of our trainers."""
    return model.train(trainer=trainer, **keys)
