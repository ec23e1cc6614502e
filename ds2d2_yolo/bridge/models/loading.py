"""Models loaded as Ultralytics resolves their names."""

from __future__ import annotations

from torch import nn
from ultralytics import YOLO
from ultralytics.utils.checks import check_model_file_from_stem

from ds2d2_yolo.bridge.data.security import refuse_activation, safe_loading_active
from ds2d2_yolo.bridge.models.heads import dense_head, refuse_yaml
from ds2d2_yolo.bridge.upstream.messages import first_line
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
    if safe_loading_active():
        refuse_activation(model.model, f"student={name}")
    return model
