"""Ultralytics without distillation: train a plain model, measure, export and draw on it, and look at a finished run."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from ultralytics import YOLO
from ultralytics.data.augment import LetterBox
from ultralytics.nn.tasks import load_checkpoint
from ultralytics.utils.torch_utils import get_flops

from ds2d2_yolo.bridge.data.images import label_paths, read_image
from ds2d2_yolo.bridge.upstream.messages import first_line
from ds2d2_yolo.errors import DS2D2Error


@dataclass(frozen=True)
class Measured:
    """What a checkpoint is and what it reaches.

    Attributes:
        parameters (int): Number of parameters.
        gflops (float): GFLOPs of a forward pass at the measured image size.
        file_mb (float): Size of the checkpoint in MB (1e6 bytes).
        map50 (float): mAP50 on the validation split, 0 to 1.
        map50_95 (float): mAP50-95 likewise.
    """

    parameters: int
    gflops: float
    file_mb: float
    map50: float
    map50_95: float


@dataclass(frozen=True)
class Boxes:
    """Rotated boxes of an image.

    Attributes:
        corners (NDArray[np.float32]): N x 4 x 2 in pixels.
        classes (NDArray[np.int64]): N class indices.
    """

    corners: NDArray[np.float32]
    classes: NDArray[np.int64]


def measure(weights: Path, **keys: Any) -> Measured:
    """Validate a checkpoint on the validation split.

    Args:
        weights (Path): The checkpoint, in the `weights` folder of its run.
        **keys (Any): Ultralytics validation settings: data, imgsz, batch, device and so on.

    Returns:
        (Measured): Its size and its mAP.
    """
    model = YOLO(str(weights))
    plain: Any = copy.deepcopy(model.model)  # validation folds the model's normalisation into its convolutions
    parameters = sum(p.numel() for p in plain.parameters())
    gflops = float(get_flops(plain, keys["imgsz"]))
    run = str(weights.parent.parent)
    metrics: Any = model.val(**keys, split="val", plots=False, save_dir=run, exist_ok=True, verbose=False)
    size = weights.stat().st_size / 1e6
    return Measured(parameters, gflops, size, float(metrics.box.map50), float(metrics.box.map))


def export_onnx(weights: Path, imgsz: int) -> Path:
    """Export a checkpoint to ONNX, float32 and with a fixed input of 1 x 3 x imgsz x imgsz.

    Args:
        weights (Path): The checkpoint.
        imgsz (int): Side of the input in pixels.

    Returns:
        (Path): The ONNX file, beside the checkpoint.

    Raises:
        DS2D2Error: If the export fails.
    """
    try:
        return Path(YOLO(str(weights)).export(format="onnx", imgsz=imgsz, device="cpu"))
    except Exception as e:  # what an export raises depends on three other packages
        raise DS2D2Error(f"the ONNX export of {weights} failed: {first_line(e)}") from e


def network_input(image: Path, imgsz: int) -> NDArray[np.float32]:
    """Read an image as an exported model takes it.

    Args:
        image (Path): The image.
        imgsz (int): Side of the input in pixels.

    Returns:
        (NDArray[np.float32]): 1 x 3 x imgsz x imgsz, RGB in [0, 1], letterboxed.
    """
    boxed = LetterBox((imgsz, imgsz))(image=read_image(image))
    chw = boxed[None, :, :, ::-1].transpose(0, 3, 1, 2)
    return np.ascontiguousarray(chw, dtype=np.float32) / np.float32(255)


def torch_output(weights: Path, inputs: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    """Return the raw predictions of a checkpoint on the CPU, in float32.

    Args:
        weights (Path): The checkpoint.
        inputs (Sequence[NDArray[np.float32]]): Network inputs of one image each.

    Returns:
        (list[NDArray[np.float32]]): For each, 1 x (4 + classes + 1) x anchors: xywh in pixels, scores, angle (radians).
    """
    model = load_checkpoint(str(weights), fuse=True)[0]
    with torch.no_grad():
        return [model(torch.from_numpy(x))[0].numpy() for x in inputs]


def predict(weights: Path, images: Sequence[Path], imgsz: int, conf: float, device: Any) -> list[Boxes]:
    """Return the boxes that a checkpoint finds in images.

    Args:
        weights (Path): The checkpoint.
        images (Sequence[Path]): The images.
        imgsz (int): Image size in pixels.
        conf (float): Smallest confidence.
        device (Any): Device as Ultralytics takes it.

    Returns:
        (list[Boxes]): For each image, in its own pixels.
    """
    model = YOLO(str(weights))
    found = []
    for image in images:
        obb: Any = model.predict(str(image), imgsz=imgsz, conf=conf, device=device, verbose=False, save=False)[0].obb
        found.append(Boxes(obb.xyxyxyxy.cpu().numpy().reshape(-1, 4, 2), obb.cls.cpu().numpy().astype(np.int64)))
    return found


def ground_truth(images: Sequence[Path]) -> list[Boxes]:
    """Return the labelled boxes of images.

    Args:
        images (Sequence[Path]): Images with oriented labels.

    Returns:
        (list[Boxes]): For each image, in its own pixels; an image without labels has none.
    """
    found = []
    for image, label in zip(images, label_paths(images), strict=True):
        text = label.read_text(encoding="utf-8") if label.is_file() else ""
        rows = np.array([line.split()[:9] for line in text.splitlines() if line.strip()], dtype=np.float32)
        rows = rows.reshape(-1, 9)
        height, width = read_image(image).shape[:2]
        corners = rows[:, 1:].reshape(-1, 4, 2) * np.array([width, height], dtype=np.float32)
        found.append(Boxes(corners, rows[:, 0].astype(np.int64)))
    return found
