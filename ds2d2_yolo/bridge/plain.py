"""Ultralytics without distillation: train a plain model, measure, export and draw on it, and look at a finished run."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from ultralytics import YOLO
from ultralytics.data.augment import LetterBox
from ultralytics.data.utils import check_det_dataset
from ultralytics.nn.tasks import load_checkpoint, torch_safe_load
from ultralytics.utils import torch_utils
from ultralytics.utils.patches import imread
from ultralytics.utils.torch_utils import get_flops, select_device

from ds2d2_yolo.bridge.data import check_labels, labels_of
from ds2d2_yolo.errors import BadUseError, DS2D2Error
from ds2d2_yolo.utils.threads import thread_count


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


@contextmanager
def cpu_threads() -> Iterator[None]:
    """Let Ultralytics compute with `thread_count()` threads while the context lasts.

    Ultralytics leaves one core free whenever it selects a device, and ignores `OMP_NUM_THREADS`. There is no setting
    for it (8.4.190): `select_device` reads a module value, which this changes and puts back.

    Yields:
        (None): While it lasts, torch takes `thread_count()` threads.
    """
    before, own = torch.get_num_threads(), torch_utils.NUM_THREADS
    torch_utils.NUM_THREADS = thread_count()
    torch.set_num_threads(torch_utils.NUM_THREADS)
    try:
        yield
    finally:
        torch_utils.NUM_THREADS = own
        torch.set_num_threads(before)


def check_device(device: Any) -> torch.device:
    """Return the device that a setting means.

    Args:
        device (Any): As Ultralytics takes it: None, 'cpu', 'mps', 0, '0'.

    Returns:
        (torch.device): The device.

    Raises:
        BadUseError: If this machine has no such device.
    """
    try:
        found = select_device(device, verbose=False)
    except (ValueError, RuntimeError, AssertionError) as e:
        raise BadUseError(f"device={device} is no device of this machine: use device=cpu, or leave it out") from e
    if not isinstance(found, torch.device):  # Ultralytics hands names of other runtimes' devices through (8.4.190)
        raise BadUseError(f"device={device} is no device of torch: use device=cpu, mps or the number of a GPU")
    return found


def obb_data(data: str) -> dict[str, Any]:
    """Return an oriented-box data set, drawn or downloaded first where its YAML has the code for it.

    Args:
        data (str): Data-set YAML. Its `download:` entry is run as code.

    Returns:
        (dict[str, Any]): As Ultralytics' `check_det_dataset` returns it.

    Raises:
        BadUseError: If it is missing, malformed or has no oriented labels.
    """
    try:
        found: dict[str, Any] = check_det_dataset(data)
    except (OSError, SyntaxError, TypeError, ValueError, RuntimeError) as e:
        first = (str(e).strip().splitlines() or [type(e).__name__])[0]
        raise BadUseError(f"data={data}: {first}") from e
    check_labels(found, "obb")
    return found


def trained_epochs(last: Path) -> int | None:
    """Return how many epochs a run's last.pt has behind it.

    Args:
        last (Path): The file, existing or not.

    Returns:
        (int | None): The number; -1 when the run is finished and its files are stripped; None if there is no file
            that can be read, as after a kill in the middle of a write.
    """
    if not last.is_file():
        return None
    try:
        epoch = int(torch_safe_load(last)[0]["epoch"])  # heeds ULTRALYTICS_SAFE_LOAD
    except Exception:  # unpickling half a file can raise anything
        return None
    return epoch if epoch < 0 else epoch + 1


def train_plain(model: str, keys: Mapping[str, Any]) -> None:
    """Train a model with Ultralytics alone.

    Args:
        model (str): Model YAML.
        keys (Mapping[str, Any]): Ultralytics training settings.
    """
    YOLO(model).train(**keys)


def resume_plain(last: Path, device: Any) -> None:
    """Go on with an unfinished training of Ultralytics alone; its own settings stand."""
    YOLO(str(last)).train(resume=True, device=device)


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
        first = (str(e).strip().splitlines() or [type(e).__name__])[0]
        raise DS2D2Error(f"the ONNX export of {weights} failed: {first}") from e


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
    for image, label in zip(images, labels_of(images), strict=True):
        text = label.read_text(encoding="utf-8") if label.is_file() else ""
        rows = np.array([line.split()[:9] for line in text.splitlines() if line.strip()], dtype=np.float32)
        rows = rows.reshape(-1, 9)
        height, width = read_image(image).shape[:2]
        corners = rows[:, 1:].reshape(-1, 4, 2) * np.array([width, height], dtype=np.float32)
        found.append(Boxes(corners, rows[:, 0].astype(np.int64)))
    return found


def read_image(image: Path, channels: int = 3) -> NDArray[np.uint8]:
    """Return an image as Ultralytics' data sets read it; its reader takes any path on any system.

    Args:
        image (Path): The image.
        channels (int): Its channels: 3 for colour, 1 for grey, another number for the bands of a TIFF.

    Returns:
        (NDArray[np.uint8]): H x W x channels; BGR where there are 3.

    Raises:
        DS2D2Error: If it cannot be read, or has another number of bands.
    """
    flags = {1: cv2.IMREAD_GRAYSCALE, 3: cv2.IMREAD_COLOR}.get(channels, cv2.IMREAD_UNCHANGED)
    pixels: NDArray[np.uint8] | None = imread(str(image), flags)
    if pixels is None:
        raise DS2D2Error(f"{image} cannot be read as an image")
    if (bands := pixels.shape[2] if pixels.ndim == 3 else 1) != channels:
        raise DS2D2Error(f"{image} has {bands} channels instead of {channels}")
    return pixels
