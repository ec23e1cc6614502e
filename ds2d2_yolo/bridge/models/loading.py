"""Loading of models by the names that Ultralytics resolves, and checks of what a training takes of them."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel, OBBModel, load_checkpoint
from ultralytics.utils.checks import check_model_file_from_stem

from ds2d2_yolo.bridge.data.security import refuse_activation, safe_loading_active
from ds2d2_yolo.bridge.models.heads import dense_head, refuse_yaml
from ds2d2_yolo.bridge.upstream.messages import first_line
from ds2d2_yolo.bridge.upstream.modelopt import require_for_checkpoint
from ds2d2_yolo.bridge.upstream.rng_state import preserve_rng
from ds2d2_yolo.errors import BadUseError


def load_yolo(name: str, who: str, task: str | None = None, kind: str = "model") -> YOLO:
    """Load a model as Ultralytics resolves its name, with one message for any failure.

    Args:
        name (str): Checkpoint, model YAML, exported model or a release's name, which Ultralytics downloads.
        who (str): The model as messages name it, such as 'student=yolov8n.pt'.
        task (str | None): Task of an exported model that does not say it.
        kind (str): What the file should be, for the message: 'model' or 'checkpoint'.

    Returns:
        (YOLO): The model; the caller checks its task and its head.

    Raises:
        BadUseError: If it is missing or unreadable.
    """
    file = str(check_model_file_from_stem(name))
    require_for_checkpoint(Path(file), who)
    try:
        return YOLO(file, task=task)
    except FileNotFoundError as e:
        raise BadUseError(f"{who} does not exist, and Ultralytics has no release of that name") from e
    except Exception as e:  # unpickling an arbitrary file can raise anything
        raise BadUseError(f"{who} cannot be read as an Ultralytics {kind}: {first_line(e)}") from e


def load_student(name: str) -> YOLO:
    """Load a student.

    Args:
        name (str): Checkpoint, model YAML or a release's name.

    Returns:
        (YOLO): With task 'detect' or 'obb'.

    Raises:
        BadUseError: If it is missing, unreadable or of a kind that is not distilled, such as RT-DETR.
    """
    if name.lower().endswith((".yaml", ".yml")):
        refuse_yaml(name, f"student={name}")
    model = load_yolo(name, f"student={name}")
    if not isinstance(model.model, nn.Module):
        raise BadUseError(f"student={name} is an exported model: name a checkpoint (.pt) or a model YAML")
    dense_head(model.model, f"student={name}")
    if safe_loading_active():
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
    with preserve_rng():
        student = kind(cfg, nc=data["nc"], ch=data["channels"], verbose=False)
    student.names = data["names"]  # loading matches the rows of the class branch by name
    if weights is not None:
        student.load(weights, verbose=False)
    return student


def starting_weights(args: Namespace) -> str | None:
    """Return the checkpoint whose weights the student of a run starts from.

    Args:
        args (Namespace): Ultralytics' arguments: `model`, `pretrained` and `resume` count.

    Returns:
        (str | None): Its file; None for random weights, and where there is no student.
    """
    if args.model is None or (args.pretrained is False and not args.resume):
        return None
    named = args.pretrained if isinstance(args.pretrained, (str, Path)) and not args.resume else None
    file = str(named or check_model_file_from_stem(args.model))
    return file if file.lower().endswith(".pt") else None


def check_pretrained(pretrained: Any) -> None:
    """Load the checkpoint that Ultralytics' `pretrained=` names: a training would load it when its folder exists.

    Args:
        pretrained (Any): Value of the setting, see `upstream.arguments`; one that is no path passes.

    Raises:
        BadUseError: If it is missing or unreadable.
    """
    if isinstance(pretrained, (str, Path)):
        load_yolo(str(pretrained), f"pretrained={pretrained}", kind="checkpoint")


def check_freeze(student: Any, freeze: Any) -> None:
    """Refuse layers to freeze that a student does not have: Ultralytics (8.4.190) ignores them.

    Args:
        student (Any): Ultralytics model.
        freeze (Any): Value of Ultralytics' `freeze=`, see `upstream.arguments`.

    Raises:
        BadUseError: Naming the layers.
    """
    if not isinstance(freeze, list):
        return
    parameters = [name for name, _ in student.named_parameters()]
    unknown = [x for x in freeze if not _has_layer(student, x, parameters)]
    if unknown:
        last = len(student.model) - 1
        raise BadUseError(
            f"freeze={freeze}: the student has no layer {', '.join(map(str, unknown))}; its layers are 0 to {last}"
        )


def _has_layer(student: Any, layer: Any, parameters: list[str]) -> bool:
    """Return whether `freeze=` can mean a layer: by its number, also one without parameters, or by a module's name."""
    if isinstance(layer, int):
        return layer < len(student.model)
    return any(f"model.{layer}." in name for name in parameters)
