"""Ultralytics' exporter: checks its settings early, writes complete files or none, and lists images to compare on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from ultralytics import YOLO
from ultralytics.cfg import get_cfg
from ultralytics.data.utils import check_det_dataset
from ultralytics.engine.exporter import export_formats, validate_args
from ultralytics.utils.checks import check_file, check_imgsz
from ultralytics.utils.torch_utils import is_qat

from ds2d2_yolo.bridge.data.class_map import class_names
from ds2d2_yolo.bridge.data.images import list_images
from ds2d2_yolo.bridge.data.security import is_archive
from ds2d2_yolo.bridge.inference.quantised_export import refuse_format, write_openvino
from ds2d2_yolo.bridge.models.heads import dense_head
from ds2d2_yolo.bridge.models.input_channels import input_channels
from ds2d2_yolo.bridge.models.loading import load_yolo
from ds2d2_yolo.bridge.upstream.logging import warnings_only
from ds2d2_yolo.bridge.upstream.messages import first_line
from ds2d2_yolo.config.resources import resolve_data
from ds2d2_yolo.errors import BadUseError, DS2D2Error
from ds2d2_yolo.utils.atomic_files import temporary_of

# modules of a format and the requirement that installs each; Ultralytics names those of the other formats
REQUIRED_MODULES = {
    "onnx": (("onnx", "ds2d2-yolo[export]"), ("onnxruntime", "ds2d2-yolo[export]")),
    "openvino": (("openvino", "ds2d2-yolo[openvino]"),),
    "ncnn": (("ncnn", "ncnn"), ("pnnx", "pnnx==20260526")),
}


@dataclass(frozen=True)
class Checkpoint:
    """A trained checkpoint that can be exported.

    Attributes:
        path (Path): Its file.
        task (str): 'detect' or 'obb'.
        imgsz (int | list[int]): Image size that it was trained with, in pixels.
        stride (int): Largest stride.
        channels (int): Channels of its input.
        data (str | None): The data YAML that it was trained on, as it was named then.
        parameters (int): Number of parameters.
        names (tuple[str, ...]): Class names.
        end2end (bool): Whether its head can do without NMS.
        quantised (bool): Whether it was trained with `quantize=8`, so that it exports to INT8 without calibration.
    """

    path: Path
    task: str
    imgsz: int | list[int]
    stride: int
    channels: int
    data: str | None
    parameters: int
    names: tuple[str, ...]
    end2end: bool
    quantised: bool = False


def open_checkpoint(name: str | None, mode: str, unfinished: bool = False) -> Checkpoint:
    """Open a checkpoint and return its facts.

    Args:
        name (str | None): Its path.
        mode (str): The command, for the message.
        unfinished (bool): Whether the checkpoint of an unfinished training is accepted.

    Returns:
        (Checkpoint): Its facts.

    Raises:
        BadUseError: If it is missing, unreadable, of another kind or unfinished.
    """
    if not name:
        raise BadUseError(f"model= missing: ds2d2-yolo {mode} model=best.pt ...")
    if Path(name).suffix != ".pt":
        raise BadUseError(f"model={name} is no checkpoint (.pt)")
    file = Path(name).expanduser()  # only bash expands it after an equals sign
    if not file.is_file():
        raise BadUseError(f"model={name} does not exist")
    yolo = load_yolo(str(file), f"model={name}")
    model: Any = yolo.model
    head = dense_head(model, f"model={name}")
    state: dict[str, Any] = yolo.ckpt or {}
    if state.get("epoch", -1) >= 0 and state.get("optimizer") is not None and not unfinished:
        raise BadUseError(
            f"model={name} is of an unfinished training ({state['epoch'] + 1} epochs): finish it with 'resume', or "
            "take it as it is with unfinished=True"
        )
    args = model.args if isinstance(model.args, dict) else {}
    return Checkpoint(
        file, str(yolo.task), args.get("imgsz", 640), int(head.stride.max()), input_channels(model),
        args.get("data"), sum(p.numel() for p in model.parameters()), class_names(model.names),
        getattr(head, "one2one_cv2", None) is not None, is_qat(model),
    )  # fmt: skip


def export_args(format: str, keys: Mapping[str, Any], checkpoint: Checkpoint) -> dict[str, Any]:
    """Let Ultralytics check the settings of an export, and return them under their present names.

    Args:
        format (str): What to write.
        keys (Mapping[str, Any]): Keys of Ultralytics' export; half and int8 become quantize, end2end becomes nms.
        checkpoint (Checkpoint): The checkpoint.

    Returns:
        (dict[str, Any]): Keys for `write_export`, always with imgsz (height, width), batch, quantize
            and nms; data only where the format takes it.

    Raises:
        BadUseError: If a value is wrong, the format does not take a key, INT8 has no data, or a package is missing.
    """
    formats = export_formats()
    supported = dict(zip(formats["Argument"], formats["Arguments"], strict=True))[format]
    settings = {"imgsz": checkpoint.imgsz, "batch": 1, "nms": None, **keys}
    if checkpoint.quantised:
        refuse_format(format, f"model={checkpoint.path}")
    try:
        with warnings_only():
            args = get_cfg(overrides={"data": None, "device": None, **settings, "format": format, "mode": "export"})
            data, args.data = (
                args.data,
                args.data if "data" in supported else None,
            )  # the check takes its images from it, whatever the format
            validate_args(format, args, supported)
            size = check_imgsz(settings["imgsz"], stride=checkpoint.stride, min_dim=2)
    except (AssertionError, TypeError, ValueError, SyntaxError) as e:
        raise BadUseError(first_line(e)) from e
    if not isinstance(args.batch, int) or args.batch < 1:
        raise BadUseError(f"batch={args.batch} must be a whole number of at least 1")
    if checkpoint.quantised:
        if args.quantize not in {None, 8}:
            raise BadUseError(f"model={checkpoint.path} was trained with quantize=8: it exports to INT8 alone")
        args.quantize = 8
    elif args.quantize in {8, "w8a16"} and "data" in supported and not args.data:
        raise BadUseError("INT8 needs images to calibrate on: name a data YAML, data=...")
    if args.data:
        args.data = resolve_data(str(args.data))
    if data:
        val_images(resolve_data(str(data)))
    _refuse_missing(format, args, checkpoint.quantised)
    names = [k for k in keys if k not in {"half", "int8", "end2end", "data"}]
    return {**{k: getattr(args, k) for k in names}, "imgsz": size, "batch": args.batch, "quantize": args.quantize,
            "nms": args.nms, **({"data": args.data} if args.data else {})}  # fmt: skip


def _refuse_missing(format: str, args: Any, quantised: bool) -> None:
    """Refuse a format whose packages are not installed: Ultralytics would install them, or fail halfway."""
    through_onnx = quantised and format == "openvino"
    required = list(REQUIRED_MODULES.get(format, ()))
    required += REQUIRED_MODULES["onnx"] if through_onnx else ()
    if (format == "onnx" or through_onnx) and args.simplify:
        required.append(("onnxslim", "ds2d2-yolo[export]"))
    if format == "openvino" and args.quantize == 8 and not quantised:
        required.append(("nncf", "ds2d2-yolo[openvino]"))
    missing = [(module, pip) for module, pip in required if find_spec(module) is None]
    if missing:
        names, pips = ", ".join(m for m, _ in missing), " ".join(f"'{p}'" for p in dict.fromkeys(p for _, p in missing))
        raise BadUseError(f"format={format} needs {names}: pip install {pips}")


def missing_for_engine() -> str | None:
    """Return what is missing on this machine to build a TensorRT engine, None if nothing."""
    missing = [] if torch.cuda.is_available() else ["an NVIDIA GPU"]
    missing += [] if find_spec("tensorrt") else ["the package tensorrt"]
    return " and ".join(missing) or None


def write_export(
    checkpoint: Checkpoint, format: str, args: Mapping[str, Any], folder: Path, verbose: bool = False
) -> Path:
    """Export a checkpoint to a complete file or folder, or to none.

    Ultralytics writes beside the checkpoint, step by step. Here it works in a temporary folder, whose name starts with
    a dot and ends in '.tmp'. The complete result is moved to its place, where it replaces an older one of its name.

    Args:
        checkpoint (Checkpoint): The checkpoint.
        format (str): What to write.
        args (Mapping[str, Any]): Of `export_args`.
        folder (Path): Folder of the result.
        verbose (bool): Whether Ultralytics logs what it does.

    Returns:
        (Path): The file or folder.

    Raises:
        BadUseError: If the folder cannot be written.
        DS2D2Error: If the export fails.
    """
    work = temporary_of(folder / f"{checkpoint.path.stem}-{format}")
    try:
        shutil.rmtree(work, ignore_errors=True)  # in a container, a dead process may have had the same number
        work.mkdir(parents=True)
    except OSError as e:
        raise BadUseError(f"{folder} cannot be written: {e.strerror}") from e
    try:
        copy = work / checkpoint.path.name
        shutil.copyfile(checkpoint.path, copy)
        with warnings_only(verbose):
            if checkpoint.quantised and format == "openvino":
                exported = write_openvino(Path(YOLO(str(copy)).export(**{**args, "format": "onnx"})))
            else:
                exported = Path(YOLO(str(copy)).export(**{**args, "format": format}))
        return _move_into_place(exported, folder / exported.name)
    except ModuleNotFoundError as e:
        raise DS2D2Error(f"format={format} needs the package {e.name}, which is not installed") from e
    except DS2D2Error:
        raise
    except Exception as e:  # what an export raises depends on other packages
        raise DS2D2Error(f"the {format} export of {checkpoint.path} failed: {first_line(e)}") from e
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _move_into_place(exported: Path, target: Path) -> Path:
    """Move a complete file or folder; an older folder is renamed first, so that no folder is a mixture of both."""
    older = temporary_of(target.with_name(f"{target.name}.old"))
    shutil.rmtree(older, ignore_errors=True)
    if target.is_dir():
        os.replace(target, older)
    os.replace(exported, target)
    shutil.rmtree(older, ignore_errors=True)
    return target


def val_images(data: str, download: bool = True) -> list[Path]:
    """Return the validation images of a data set.

    Args:
        data (str): Data YAML.
        download (bool): See `val_data`.

    Returns:
        (list[Path]): The images, one or more.

    Raises:
        BadUseError: As `val_data`.
    """
    return list_images(val_data(data, download)["val"])


def val_data(data: str, download: bool = True) -> dict[str, Any]:
    """Return a data set that has validation images.

    Args:
        data (str): Data YAML.
        download (bool): Whether missing images may be downloaded or drawn, as the YAML specifies. Without it `data`
            must be a YAML on this machine: Ultralytics downloads an address and unpacks an archive anyway (8.4.190).

    Returns:
        (dict[str, Any]): As `check_det_dataset` returns it.

    Raises:
        BadUseError: If the YAML is wrong, or there are no validation images.
    """
    try:
        if not download:
            data = _local_yaml(data)
        with warnings_only(download):
            dataset: dict[str, Any] = check_det_dataset(data, autodownload=download)
    except Exception as e:  # reading it can mean unpacking and downloading
        raise BadUseError(f"data={data}: {first_line(e)}") from e
    if not list_images(dataset["val"]):
        raise BadUseError(f"data={data}: no validation images in {dataset['val']}")
    return dataset


def _local_yaml(data: str) -> str:
    """Return the path of a data YAML on this machine; Ultralytics' packaged ones may be given by name."""
    name = data if data.endswith((".yaml", ".yml")) else f"{data}.yaml"
    file = Path(check_file(name, (".yaml", ".yml"), download=False))
    if is_archive(file):
        raise BadUseError("an archive with the name of a YAML")
    return str(file)
