"""Ultralytics' validation of a checkpoint or an exported file, checked before it starts."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from ultralytics import YOLO
from ultralytics.cfg import get_cfg
from ultralytics.data.utils import get_split_fraction
from ultralytics.utils import DEFAULT_CFG_KEYS, LOGGER

from ds2d2_yolo.bridge.data.class_map import check_classes
from ds2d2_yolo.bridge.data.data_warnings import label_file_warnings
from ds2d2_yolo.bridge.data.dataset import load_data
from ds2d2_yolo.bridge.data.images import label_paths, list_images, take_fraction
from ds2d2_yolo.bridge.data.label_checks import SPLITS, check_split
from ds2d2_yolo.bridge.data.security import refuse_code_in_data, refuse_program, safe_loading
from ds2d2_yolo.bridge.models.heads import dense_head
from ds2d2_yolo.bridge.models.input_channels import input_channels
from ds2d2_yolo.bridge.models.loading import load_yolo
from ds2d2_yolo.bridge.upstream.arguments import validate_ultralytics_args
from ds2d2_yolo.bridge.upstream.compat import check_ultralytics
from ds2d2_yolo.bridge.upstream.devices import check_device
from ds2d2_yolo.bridge.upstream.messages import first_line
from ds2d2_yolo.bridge.validation.recording import VALIDATORS, MatchedDetections, RecordingValidator
from ds2d2_yolo.config.resources import resolve_data
from ds2d2_yolo.errors import BadUseError, DS2D2Error

# save_dir is a setting without a default; half and end2end are old names that Ultralytics still reads
VAL_KEYS = frozenset({*DEFAULT_CFG_KEYS, "save_dir", "half", "end2end"}) - {"model", "data", "mode", "cfg"}


@dataclass(frozen=True)
class Validated:
    """The result of a validation.

    Attributes:
        detections (MatchedDetections): Objects and detections.
        metrics (Any): Ultralytics' metrics.
        save_dir (Path): Folder of the run.
        facts (dict[str, Any]): model, task, data, split, imgsz, conf, iou and max_det as they were.
    """

    detections: MatchedDetections
    metrics: Any
    save_dir: Path
    facts: dict[str, Any]


def validate(model: str, data: str | None = None, safe: bool = False, **keys: Any) -> Validated:
    """Validate a model as Ultralytics does, and record its detections.

    Args:
        model (str): Checkpoint, a release's name or an exported model.
        data (str | None): Data-set YAML; None is the one that the checkpoint was trained on.
        safe (bool): Whether a model or a data set that could run code is refused.
        **keys (Any): Ultralytics' settings.

    Returns:
        (Validated): The result.

    Raises:
        BadUseError: If anything does not fit, before the first image.
        DS2D2Error: If an exported model cannot be run.
    """
    check_ultralytics()
    validate_ultralytics_args(keys)
    check_device(keys.get("device"))
    with safe_loading(safe):
        if safe:
            refuse_program(model)
        yolo = open_model(model, keys.pop("task", None))
        data = data or yolo.overrides.get("data")
        if not data:
            raise BadUseError("data= missing: ds2d2-yolo val model=best.pt data=D.yaml")
        if safe:
            refuse_code_in_data(str(data))
        keys["data"] = resolve_data(str(data))
        _check_split(get_cfg(overrides=keys), yolo, model)
        return _run(yolo, model, str(data), keys)


def _run(yolo: YOLO, model: str, data: str, keys: dict[str, Any]) -> Validated:
    """Run Ultralytics' validation of an opened model."""
    validators: list[RecordingValidator] = []

    def build(**arguments: Any) -> RecordingValidator:
        """Build the validator and keep a reference: `YOLO.val` returns its metrics only."""
        validators.append(VALIDATORS[str(yolo.task)](**arguments))
        return validators[0]

    try:
        metrics = yolo.val(validator=build, **keys)
    except Exception as e:  # what a broken export raises depends on its runtime
        if isinstance(yolo.model, nn.Module):
            raise
        if validators and validators[0].save_dir.is_dir() and not any(validators[0].save_dir.iterdir()):
            validators[0].save_dir.rmdir()
        kind = BadUseError if isinstance(e, TypeError) else DS2D2Error  # Ultralytics' TypeError: the file is no model
        raise kind(f"model={model} cannot be run: {first_line(e)}") from e
    validator = validators[0]
    assert validator.detections is not None  # every validation ends with get_stats
    facts = {"model": str(model), "task": yolo.task, "data": data}
    facts |= {k: getattr(validator.args, k) for k in ("split", "imgsz", "conf", "iou", "max_det")}
    return Validated(validator.detections, metrics, Path(validator.save_dir), facts)


def open_model(name: str, task: str | None = None) -> YOLO:
    """Open a model to validate.

    Args:
        name (str): Checkpoint, a release's name or an exported model.
        task (str | None): Its task, for an exported model that does not hold it.

    Returns:
        (YOLO): With task 'detect' or 'obb'.

    Raises:
        BadUseError: If it is missing, unreadable, untrained or of another task.
    """
    if name.lower().endswith((".yaml", ".yml")):
        raise BadUseError(f"model={name} is a model YAML, which has learned nothing: name a checkpoint (.pt)")
    model = load_yolo(name, f"model={name}", task)
    if model.task not in VALIDATORS:
        raise BadUseError(f"model={name} is a {model.task} model: val takes detect and obb")
    if task not in (None, model.task):
        raise BadUseError(f"model={name} is a {model.task} model: leave task={task} out")
    if isinstance(model.model, nn.Module):
        dense_head(model.model, f"model={name}")
    return model


def _check_split(args: Namespace, yolo: YOLO, model: str) -> None:
    """Refuse a split without images or labels, or one that does not fit the model's task or channels."""
    data = load_data(args)
    split = data.get(args.split)
    images = take_fraction(list_images(split), get_split_fraction(args.fraction, args.split)) if split else []
    if not images:
        raise BadUseError(f"data={args.data} has no images for split={args.split}: check that entry of the data YAML")
    if not args.single_cls:
        check_classes(args.classes, len(data["names"]), "the data have")
    labels = label_paths(images)
    texts = (f.read_text(encoding="utf-8", errors="replace").strip() for f in labels if f.is_file())
    line = next((t.splitlines()[0] for t in texts if t), None)
    if line is None:
        raise BadUseError(f"no labels for the {len(images)} images of split={args.split} in {labels[0].parent}")
    if yolo.task == "detect" and len(line.split()) == 9:
        LOGGER.info("The labels are oriented: their upright hulls are the objects of a detect model.")
    name = SPLITS.get(args.split, args.split)
    check_split(data, images, str(yolo.task), "an obb model", name)
    for warning in label_file_warnings(images, name):  # what Ultralytics leaves out is in its log
        LOGGER.warning(warning)
    channels = data.get("channels", 3)
    if isinstance(yolo.model, nn.Module) and (takes := input_channels(yolo.model)) != channels:
        raise BadUseError(f"model={model} takes {takes} channels, and the data have {channels}")
