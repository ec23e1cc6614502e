"""Locations of the packaged files: settings and models (`cfg/`), and data-set descriptions (`data/`)."""

from __future__ import annotations

from pathlib import Path


def resource_dir(name: str) -> Path:
    """Return a resource folder: inside the package when installed from a wheel, beside it in a clone.

    Args:
        name (str): 'cfg' or 'data'.

    Returns:
        (Path): The folder.

    Raises:
        FileNotFoundError: If the installation lacks the folder.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / name, package.parent / name):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"the installation lacks its folder '{name}': reinstall ds2d2-yolo")


def resolve_data(data: str) -> str:
    """Return the path of a packaged data-set YAML, or `data` unchanged.

    A file of that name in the working directory has priority, then a packaged one; Ultralytics resolves other names.

    Args:
        data (str): Path or name, such as 'dota.yaml' or 'aerial-scenes'.

    Returns:
        (str): A path, or the name unchanged.
    """
    if Path(data).exists():
        return data
    name = data if data.endswith((".yaml", ".yml")) else f"{data}.yaml"
    packaged = resource_dir("data") / name
    return str(packaged) if Path(name).name == name and packaged.is_file() else data


def resolve_model(model: str) -> str:
    """Return the path of a packaged model YAML or checkpoint, or `model` unchanged.

    A file of that name in the working directory has priority, then a packaged one; Ultralytics resolves other names.

    Args:
        model (str): Path or name, such as 'yolov8-pico-obb.yaml'.

    Returns:
        (str): A path, or the name unchanged.
    """
    if Path(model).exists():
        return model
    packaged = resource_dir("cfg") / "models" / model
    return str(packaged) if Path(model).name == model and packaged.is_file() else model
