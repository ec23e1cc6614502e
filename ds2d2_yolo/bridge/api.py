"""The Python entrance: `distill`, which the command line calls too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ultralytics import YOLO
from ultralytics.cfg import get_cfg
from ultralytics.utils import DEFAULT_CFG_KEYS
from ultralytics.utils.torch_utils import unset_deterministic

from ds2d2_yolo.bridge.data.security import refuse_code_in_data, safe_loading
from ds2d2_yolo.bridge.models.loading import build_student, load_student, load_yolo
from ds2d2_yolo.bridge.preflight.collect import collect_report
from ds2d2_yolo.bridge.training.continued_run import continued_run
from ds2d2_yolo.bridge.training.find_run import Unfinished
from ds2d2_yolo.bridge.training.machines.store import stop_together
from ds2d2_yolo.bridge.training.setup.run_setup import prepare_run
from ds2d2_yolo.bridge.training.trainer import DS2D2OBBTrainer, DS2D2Trainer
from ds2d2_yolo.bridge.upstream.arguments import validate_ultralytics_args
from ds2d2_yolo.bridge.upstream.batch_callbacks import Callbacks, add_callbacks
from ds2d2_yolo.bridge.upstream.devices import check_device, cpu_threads
from ds2d2_yolo.bridge.upstream.read_only import images_read_only
from ds2d2_yolo.config import checks as ok
from ds2d2_yolo.config.options import check_keys
from ds2d2_yolo.config.recipes import resolve_settings
from ds2d2_yolo.config.resources import resolve_data
from ds2d2_yolo.config.settings import Settings
from ds2d2_yolo.errors import BadUseError
from ds2d2_yolo.report.facts import Report

TRAINERS = {"detect": DS2D2Trainer, "obb": DS2D2OBBTrainer}
REFUSED_KEYS = {"model": "student=", "mode": "the mode's own word", "task": "the student's own task"}


@cpu_threads()
@stop_together()
def distill(teacher: str | Path | None = None, student: str | Path | None = None, data: str | Path | None = None,
            callbacks: Callbacks | None = None, **keys: Any) -> Any:  # fmt: skip
    """Distil a teacher into a student.

    Args:
        teacher (str | Path | None): Trained checkpoint, or a release's name that Ultralytics downloads.
        student (str | Path | None): Checkpoint, release's name or model YAML of the same task.
        data (str | Path | None): Data-set YAML; the names of the package's own work too, such as 'dota.yaml'.
        callbacks (Callbacks | None): Ultralytics callbacks of the training by event, such as 'on_train_epoch_end'.
        **keys (Any): DS2D2 settings (see `Settings`) and Ultralytics training settings, `resume` among them.

    Returns:
        (Any): Ultralytics' metrics of the best student.

    Raises:
        BadUseError: If anything does not fit, before training begins.

    Examples:
        >>> from ds2d2_yolo import distill
        >>> distill("teacher.pt", "yolov8n-obb.yaml", "hit-uav.yaml", epochs=100, imgsz=640)  # doctest: +SKIP
    """
    settings, ds2d2_args, ultralytics_args = _checked({**keys, "teacher": teacher and str(teacher)})
    resume = ultralytics_args.pop("resume", None)
    named = student is not None and resume is True
    with safe_loading(settings.safe):
        tasks = (load_student(str(student)).task,) if named else tuple(TRAINERS)
        with continued_run(resume, ultralytics_args, tasks) as run:
            if run is not None:
                if data is not None:  # a data set that has moved
                    ultralytics_args["data"] = str(data)
                ds2d2_args = {k: v for k, v in ds2d2_args.items() if v is not None}
                return _resume(run, ds2d2_args, ultralytics_args, settings.safe, callbacks)
        _refuse_missing("train", teacher=teacher, student=student, data=data)
        if settings.safe:
            refuse_code_in_data(str(data))
        model = load_student(str(student))
        return _train(model, TRAINERS[model.task], {**ultralytics_args, **ds2d2_args, "data": str(data)}, callbacks)


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
    settings, _, ultralytics_args = _checked({**keys, "teacher": teacher and str(teacher)})
    _refuse_missing("check", teacher=teacher, student=student, data=data)
    with safe_loading(settings.safe), images_read_only():
        if settings.safe:
            refuse_code_in_data(str(data))
        return _report(load_student(str(student)), settings, {**ultralytics_args, "data": resolve_data(str(data))})


def _report(model: YOLO, settings: Settings, keys: dict[str, Any]) -> Report:
    """Return the report of a run with this student."""
    args = get_cfg(overrides={**model.overrides, **keys, "mode": "train"})
    try:
        run = prepare_run(args, settings)
        return collect_report(run, build_student(run.args, run.data))
    finally:
        unset_deterministic()  # the report's own, as Ultralytics does at the end of a training


def _checked(keys: dict[str, Any]) -> tuple[Settings, dict[str, Any], dict[str, Any]]:
    """Check names and values of all keys before anything is loaded, and part DS2D2's from Ultralytics'."""
    check_keys([k for k in keys if k not in REFUSED_KEYS], {*Settings.keys(), *DEFAULT_CFG_KEYS, "student"})
    wrong = [f"{k}= is {meaning} here" for k, meaning in REFUSED_KEYS.items() if k in keys]
    if wrong:
        raise BadUseError("; ".join(wrong))
    ds2d2_args, ultralytics_args = Settings.split(keys)
    settings = resolve_settings(ds2d2_args)
    validate_ultralytics_args(ultralytics_args)
    check_device(ultralytics_args.get("device"))
    return settings, ds2d2_args, ultralytics_args


def _refuse_missing(mode: str, **needed: Any) -> None:
    """Refuse a command without the models and data that it needs."""
    missing = [f"{k}=" for k, v in needed.items() if v is None]
    if missing:
        raise BadUseError(f"{', '.join(missing)} missing: ds2d2-yolo {mode} teacher=T.pt student=S.yaml data=D.yaml")
    wrong = [f"{k}={v!r} {error}" for k, v in needed.items() if (error := ok.path(v))]
    if wrong:
        raise BadUseError("; ".join(wrong))


def _resume(
    run: Unfinished,
    ds2d2_args: dict[str, Any],
    ultralytics_args: dict[str, Any],
    safe: bool = False,
    callbacks: Callbacks | None = None,
) -> Any:
    """Continue an unfinished run; its own settings stand, and the teacher is checked against the one it began with."""
    allowed = {k: v for k, v in ultralytics_args.items() if k not in {"project", "name", "exist_ok", "save_dir"}}
    model = load_yolo(str(run.last), f"resume={run.last}")
    if safe:
        refuse_code_in_data(str(allowed.get("data") or model.overrides.get("data")))
    ds2d2_args.pop("safe", None)  # it is the command's, not the run's
    if run.last.parent.name == "weights":  # a run goes on where it lies now, its checkpoint knows where it began
        allowed["save_dir"] = str(run.last.parent.parent)
    return _train(model, TRAINERS[run.task], {**allowed, **ds2d2_args, "resume": str(run.last)}, callbacks)


def _train(model: YOLO, trainer: type[DS2D2Trainer], keys: dict[str, Any], callbacks: Callbacks | None) -> Any:
    """Run Ultralytics' training with one of our trainers."""
    add_callbacks(model, callbacks)
    return model.train(trainer=trainer, **keys)
