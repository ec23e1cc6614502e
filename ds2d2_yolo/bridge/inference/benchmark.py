"""What a checkpoint or an exported file costs and reaches on this machine."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from ultralytics import YOLO
from ultralytics.data.utils import check_det_dataset
from ultralytics.utils.torch_utils import get_cpu_info, get_flops

from ds2d2_yolo.bridge.data.dataset import data_hash
from ds2d2_yolo.bridge.inference.backend_model import Cuts, Detector, time_of
from ds2d2_yolo.bridge.inference.export import quiet
from ds2d2_yolo.bridge.validation.class_names import VALIDATORS
from ds2d2_yolo.utils.environment import package_versions
from ds2d2_yolo.utils.threads import usable_cores

PACKAGES = ("torch", "ultralytics", "onnxruntime", "openvino", "ncnn", "tensorrt")
CUTS = Cuts(kept=0.25, raw=0.25, iou=0.7, max_det=300, agnostic=False)  # Ultralytics' predict


def gflops(checkpoint: Path, imgsz: int) -> float:
    """Return the GFLOPs of a forward pass at imgsz x imgsz pixels."""
    return float(get_flops(YOLO(str(checkpoint)).model, imgsz))


def accuracy(file: Path, task: str, **keys: Any) -> tuple[float, float]:
    """Return mAP50 and mAP50-95 on the validation split, one square image at a time, as Ultralytics' benchmark does.

    Classes under other indices than the data's are matched by name, which Ultralytics does not.

    Args:
        file (Path): Checkpoint or exported file.
        task (str): 'detect' or 'obb'.
        **keys (Any): Ultralytics' settings of a validation: data, imgsz, device, nms, quantize.

    Returns:
        map50 (float): 0 to 1.
        map50_95 (float): 0 to 1.
    """
    fixed = {"batch": 1, "rect": False, "plots": False, "verbose": False, "conf": 0.001, "split": "val", "workers": 0}
    with tempfile.TemporaryDirectory() as folder, quiet():
        found: Any = YOLO(str(file), task=task).val(
            validator=VALIDATORS[task], **fixed, **keys, save_dir=folder, exist_ok=True
        )
    return float(found.box.map50), float(found.box.map)


def timings(
    detector: Detector, images: Sequence[NDArray[np.uint8]], imgsz: int, batch: int, warmup: int, runs: int
) -> tuple[list[float], list[float]]:
    """Time a detector on images, after a warm-up.

    Args:
        detector (Detector): What to time.
        images (Sequence[NDArray[np.uint8]]): Images H x W x channels, as `read_image` gives them; they take turns.
        imgsz (int): Side of the network input in pixels.
        batch (int): Images at once.
        warmup (int): Runs that are not counted.
        runs (int): Runs that are.

    Returns:
        forward (list[float]): Milliseconds of each forward pass.
        total (list[float]): With letterbox and NMS.
    """
    forward, total, device = [], [], detector.device
    for run in range(warmup + runs):
        group = [images[(run * batch + k) % len(images)] for k in range(batch)]
        state: dict[str, torch.Tensor] = {}
        before = time_of(lambda g=group, s=state: s.update(x=detector.prepare(g, (imgsz, imgsz))), device)
        middle = time_of(lambda s=state: s.update(y=detector.forward(s["x"])), device)
        after = time_of(lambda s=state: detector.detections(s["y"], CUTS), device)
        if run >= warmup:
            forward.append(1000 * middle)
            total.append(1000 * (before + middle + after))
    return forward, total


def data_identity(data: str) -> str:
    """Return a hash of what the validation split of a data set holds."""
    found = check_det_dataset(data)
    return data_hash({**found, "train": found["val"]})[:16]


def machine() -> dict[str, Any]:
    """Return the processor, the threads and the versions that measurements depend on."""
    installed = {name: version for name, version in package_versions(PACKAGES).items() if version is not None}
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    return {
        "system": platform.platform(),
        "cpu": get_cpu_info(),
        "gpu": gpu,
        "cores": usable_cores(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
        "versions": {"python": platform.python_version(), **installed},
    }
