"""Models loaded as Ultralytics resolves their names."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel, OBBModel, load_checkpoint
from ultralytics.utils.checks import check_model_file_from_stem

from ds2d2_yolo.bridge.data.security import first_line, is_safe, refuse_activation
from ds2d2_yolo.bridge.models.heads import dense_head, refuse_yaml
from ds2d2_yolo.bridge.upstream.rng_state import same_random_state
from ds2d2_yolo.errors import BadUseError


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


def build_student(args: Namespace, data: Mapping[str, Any]) -> Any:
    """Build the student of a run as Ultralytics' trainer will. The random state stays as it is.

    Args:
        args (Namespace): Ultralytics' arguments: `model`, `pretrained`, `resume` and `task` count.
        data (Mapping[str, Any]): The data set, for the number of classes and channels.

    Returns:
        (Any): On the CPU, with the weights that it starts from.
    """
    source = str(check_model_file_from_stem(args.model))
    cfg: Any = source
    weights: Any = None
    if source.lower().endswith(".pt"):
        weights, _ = load_checkpoint(source)
        cfg = weights.yaml
    if isinstance(args.pretrained, (str, Path)) and not args.resume:
        weights, _ = load_checkpoint(args.pretrained)
    elif args.pretrained is False and not args.resume:
        weights = None
    kind = OBBModel if args.task == "obb" else DetectionModel
    with same_random_state():
        student = kind(cfg, nc=data["nc"], ch=data["channels"], verbose=False)
    student.names = data["names"]  # loading matches the rows of the class branch by name
    if weights is not None:
        student.load(weights, verbose=False)
    return student
