"""Latency, GFLOPs and mAP of a checkpoint or an exported file on this machine."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from ultralytics import YOLO
from ultralytics.data.utils import check_det_dataset
from ultralytics.utils.torch_utils import get_cpu_info, get_flops

from ds2d2_yolo.bridge.data.dataset import data_hash
from ds2d2_yolo.bridge.inference.backend_model import BackendModel, NMSSettings, timed_call
from ds2d2_yolo.bridge.upstream.logging import warnings_only
from ds2d2_yolo.bridge.validation.class_names import VALIDATORS
from ds2d2_yolo.utils.environment import package_versions
from ds2d2_yolo.utils.threads import usable_cores

PACKAGES = ("torch", "ultralytics", "onnxruntime", "openvino", "ncnn", "tensorrt")
# defaults of Ultralytics' predict
PREDICT_NMS = NMSSettings(conf=0.25, candidate_conf=0.25, iou=0.7, max_det=300, agnostic=False)


def gflops(checkpoint: Path, imgsz: int) -> float:
    """Return the GFLOPs of a forward pass.

    Args:
        checkpoint (Path): Checkpoint.
        imgsz (int): Height and width of the input in pixels.

    Returns:
        (float): Billions of floating-point operations, by Ultralytics.
    """
    return float(get_flops(YOLO(str(checkpoint)).model, imgsz))


def accuracy(file: Path, task: str, **keys: Any) -> tuple[float, float]:
    """Return mAP50 and mAP50-95 on the validation split, one square image at a time, as Ultralytics' benchmark does.

    Unlike there, classes that have other indices in the data are matched by name.

    Args:
        file (Path): Checkpoint or exported file.
        task (str): 'detect' or 'obb'.
        **keys (Any): Settings of Ultralytics' validation: data, imgsz, device, nms, quantize.

    Returns:
        map50 (float): 0 to 1.
        map50_95 (float): 0 to 1.
    """
    fixed = {"batch": 1, "rect": False, "plots": False, "verbose": False, "conf": 0.001, "split": "val", "workers": 0}
    with tempfile.TemporaryDirectory() as folder, warnings_only():
        metrics: Any = YOLO(str(file), task=task).val(
            validator=VALIDATORS[task], **fixed, **keys, save_dir=folder, exist_ok=True
        )
    return float(metrics.box.map50), float(metrics.box.map)


def timings(
    model: BackendModel, images: Sequence[NDArray[np.uint8]], imgsz: int, batch: int, warmup: int, runs: int
) -> tuple[list[float], list[float]]:
    """Time a model on images, after a warm-up.

    Args:
        model (BackendModel): The model.
        images (Sequence[NDArray[np.uint8]]): Images H x W x channels, as `read_image` returns them, used in turn.
        imgsz (int): Side of the network input in pixels.
        batch (int): Images in a batch.
        warmup (int): Runs before the timed ones.
        runs (int): Timed runs.

    Returns:
        forward (list[float]): Milliseconds of each forward pass.
        total (list[float]): Milliseconds with letterbox and NMS.
    """
    forward, total, device = [], [], model.device
    for run in range(warmup + runs):
        group = [images[(run * batch + k) % len(images)] for k in range(batch)]
        inputs, prepare_s = timed_call(partial(model.prepare, group, (imgsz, imgsz)), device)
        predicted, forward_s = timed_call(partial(model.forward, inputs), device)
        _, nms_s = timed_call(partial(model.detections, predicted, PREDICT_NMS), device)
        if run >= warmup:
            forward.append(1000 * forward_s)
            total.append(1000 * (prepare_s + forward_s + nms_s))
    return forward, total


def data_identity(data: str) -> str:
    """Return a hash of the validation split of a data set.

    Args:
        data (str): Data YAML.

    Returns:
        (str): 16 hexadecimal digits, from class names, image names and sizes, and label contents.
    """
    dataset = check_det_dataset(data)
    return data_hash({**dataset, "train": dataset["val"]})[:16]


def machine_facts() -> dict[str, Any]:
    """Return the processor, the number of cores and the versions that measurements depend on."""
    installed = {name: text for name, text in package_versions(PACKAGES).items() if text is not None}
    versions = {"python": platform.python_version(), **installed}
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    return {
        "system": platform.platform(),
        "cpu": get_cpu_info(),
        "gpu": gpu,
        "cores": usable_cores(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
        "versions": versions,
    }
