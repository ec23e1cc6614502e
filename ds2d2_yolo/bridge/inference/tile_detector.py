"""Detection in tiles with any model file that Ultralytics loads, and conversion to and from its `Results`."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count, takewhile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from ultralytics import YOLO
from ultralytics.cfg import QUANTIZE_ALIASES, get_cfg, get_save_dir
from ultralytics.engine.results import Results as Results
from ultralytics.utils import DEFAULT_CFG_KEYS, LOGGER

from ds2d2_yolo.bridge.models.heads import dense_head
from ds2d2_yolo.bridge.models.loading import load_yolo
from ds2d2_yolo.bridge.upstream.arguments import validate_ultralytics_args
from ds2d2_yolo.bridge.upstream.messages import first_line
from ds2d2_yolo.errors import BadUseError, DS2D2Error
from ds2d2_yolo.utils.detections import Detections

TASKS = ("detect", "obb")
# Ultralytics' keys that have no meaning tile by tile
NOT_IN_TILES = (
    "augment", "embed", "rect", "save_conf", "save_crop", "save_frames", "show", "show_boxes", "show_conf",
    "show_labels", "stream_buffer", "vid_stride", "visualize",
)  # fmt: skip


def ultralytics_keys() -> list[str]:
    """Return the prediction keys that Ultralytics takes."""
    # half and end2end are older names of quantize and nms; export keys mean nothing here
    return [*({*DEFAULT_CFG_KEYS} - {"format", "simplify", "opset", "workspace"}), "half", "end2end", "save_dir"]


def check_ultralytics_args(keys: dict[str, Any], tiled: bool) -> None:
    """Refuse Ultralytics' settings that are wrong, or mean nothing for tiles.

    Args:
        keys (dict[str, Any]): Ultralytics' keys.
        tiled (bool): Whether the image is read in tiles.

    Raises:
        BadUseError: In one line.
    """
    meaningless = [k for k in keys if k in NOT_IN_TILES] if tiled else []
    if meaningless:
        raise BadUseError(f"{', '.join(f'{k}=' for k in meaningless)} cannot go with slice=")
    wrong = [k for k in ("mode", "task") if k in keys]
    if wrong:
        raise BadUseError(
            f"{', '.join(f'{k}=' for k in wrong)} cannot be given: the mode is predict, the task the model's"
        )
    validate_ultralytics_args(keys)


def load_detector(model: str) -> YOLO:
    """Load a detect or OBB model of any format that Ultralytics loads.

    Args:
        model (str): Checkpoint, exported file or folder, or a release's name.

    Returns:
        (YOLO): The model.

    Raises:
        BadUseError: If it is missing, unreadable or of another task.
    """
    if model.lower().endswith((".yaml", ".yml")):
        raise BadUseError(f"model={model} describes an untrained model: name a checkpoint (.pt) or an exported file")
    yolo = load_yolo(model, f"model={model}")
    if yolo.task not in TASKS:
        raise BadUseError(f"model={model} is a {yolo.task} model: predict takes detect and obb models")
    if isinstance(yolo.model, nn.Module):
        dense_head(yolo.model, f"model={model}")
        return yolo
    try:
        _ = yolo.names  # opens an exported file
    except Exception as e:  # each format's runtime has its own errors
        raise BadUseError(f"model={model} cannot be used: {first_line(e)}") from e
    return yolo


def remove_empty_run(folder: Path) -> None:
    """Remove a run's folder that holds no files, only the empty folders that Ultralytics makes.

    Args:
        folder (Path): The run's folder; it may not exist.
    """
    if folder.is_dir() and not any(p.is_file() for p in folder.rglob("*")):
        shutil.rmtree(folder, ignore_errors=True)


class TileDetector:
    """Detects objects in batches of tiles.

    Attributes:
        names (dict[int, str]): Class names.
        oriented (bool): Whether boxes are rotated.
        channels (int): Channels of a tile.
        scale (float): Tile pixels per pixel of the network input.
    """

    def __init__(self, yolo: YOLO, keys: dict[str, Any], tile: int) -> None:
        """Set up Ultralytics' predictor.

        Args:
            yolo (YOLO): From `load_detector`.
            keys (dict[str, Any]): Ultralytics' keys, such as conf and device; imgsz defaults to the tile's side.
            tile (int): Side of a tile in pixels.

        Raises:
            BadUseError: If the device or the model's format cannot be used.
        """
        overrides = {
            k: v for k, v in keys.items() if k not in ("batch", "save", "save_txt", "project", "name", "exist_ok")
        }
        settings = {"conf": 0.25, "mode": "predict", "rect": True, "imgsz": tile, **overrides}
        try:
            with _quiet():
                self._predictor = _predictor(yolo, {**settings, "save": False, "verbose": False, "batch": 1})
        except Exception as e:  # each format's runtime has its own errors
            raise BadUseError(f"model={yolo.model_name} cannot be used: {first_line(e)}") from e
        loaded = self._predictor.model
        self.oriented = yolo.task == "obb"
        self.names = {int(k): str(v) for k, v in loaded.names.items()}
        self.channels = int(getattr(loaded, "channels", 3))  # exports of old releases do not store it
        self._check_size(tile, loaded)

    def _check_size(self, tile: int, loaded: Any) -> None:
        """Round the network's image size up to its stride; Ultralytics would warn about it for each batch."""
        fixed = None if getattr(loaded, "dynamic", False) else getattr(loaded, "imgsz", None)
        size = fixed or self._predictor.args.imgsz  # a static export has a fixed size
        stride = int(loaded.stride)
        sides = [size] if isinstance(size, int) else list(size)
        rounded = [max(stride, -(-side // stride) * stride) for side in sides]
        self._predictor.args.imgsz = rounded[0] if len(rounded) == 1 else rounded
        self.scale = tile / min(rounded)

    def __call__(self, tiles: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        """Detect objects.

        Args:
            tiles (Sequence[np.ndarray]): Pixels (H, W, C), uint8, BGR where C is 3, of one size.

        Returns:
            (list[Detections]): Detections of each tile, in its pixels.

        Raises:
            DS2D2Error: If the model fails on them.
        """
        try:
            with _quiet():
                results = self._predictor(source=list(tiles), stream=False)
        except Exception as e:  # each format's runtime has its own errors
            raise DS2D2Error(f"the model fails on a tile of {tiles[0].shape}: {first_line(e)}") from e
        return [detections_of(r) for r in results]


def _predictor(yolo: YOLO, settings: dict[str, Any]) -> Any:
    """Return Ultralytics' predictor with the model set up and its settings resolved as in `YOLO.predict`."""
    args = {**yolo.overrides, **settings}
    args["quantize"] = QUANTIZE_ALIASES.get(str(args.get("quantize")).lower(), args.get("quantize"))
    predictor = yolo._smart_load("predictor")(overrides=args, _callbacks=yolo.callbacks)
    predictor.setup_model(model=yolo.model, verbose=args.get("verbose", True))
    return predictor


def detections_of(result: Results) -> Detections:
    """Return an image's detections from Ultralytics' `Results`, without boxes that are not finite or have no area.

    Args:
        result (Results): Ultralytics' results of one image.

    Returns:
        (Detections): In pixels of that image.
    """
    table = result.boxes if result.obb is None else result.obb
    boxes = result.boxes.xywh if result.obb is None else result.obb.xywhr
    boxes = torch.nn.functional.pad(boxes.double().cpu(), (0, 5 - boxes.shape[1]))  # upright boxes have the angle 0
    scores, classes = table.conf.double().cpu(), table.cls.cpu()
    valid = boxes.isfinite().all(1) & (boxes[:, 2:4] > 0).all(1) & scores.isfinite()
    arrays = boxes[valid].numpy(), scores[valid].numpy(), classes[valid].long().numpy()
    return Detections(*arrays, oriented=result.obb is not None)


def light_results(path: Path, size: tuple[int, int], names: dict[int, str], detections: Detections) -> Results:
    """Return detections as Ultralytics' `Results`, without the image.

    `orig_img` has the image's shape, but all its elements are one zero byte: `plot()` and pickling would allocate it.
    Boxes are float64: float32 has 0.002 px left at 20,000 px.

    Args:
        path (Path): The image.
        size (tuple[int, int]): Width and height in pixels.
        names (dict[int, str]): Class names.
        detections (Detections): They go into `obb` if they are oriented, otherwise into `boxes`.

    Returns:
        (Results): In pixels of the complete image.
    """
    blank = np.broadcast_to(np.zeros((), np.uint8), (size[1], size[0], 3))
    table = torch.from_numpy(detections.rows)
    if detections.oriented:
        return Results(blank, path=str(path), names=names, obb=table)
    half = table[:, 2:4] / 2
    boxes = torch.cat([table[:, :2] - half, table[:, :2] + half, table[:, 5:]], 1)
    return Results(blank, path=str(path), names=names, boxes=boxes)


def plain_results(yolo: YOLO, source: str, keys: dict[str, Any]) -> Iterator[Results]:
    """Run Ultralytics' prediction as `yolo predict` does, which saves pictures unless `save=False`.

    Not through `YOLO.predict`: it returns nothing under a command whose name ends in 'yolo' (8.4.190).

    Args:
        yolo (YOLO): From `load_detector`.
        source (str): Any source that Ultralytics takes.
        keys (dict[str, Any]): Ultralytics' keys.

    Yields:
        (Results): Results of one image after the other.
    """
    try:
        settings = {"conf": 0.25, "batch": 1, "mode": "predict", "rect": True, "save": True, **keys}
        yolo.predictor = _predictor(yolo, settings)
        yield from yolo.predictor(source=source, stream=True)
    except FileNotFoundError as e:
        raise BadUseError(f"source={source}: {first_line(e)}") from e


def run_folders(task: str, keys: dict[str, Any]) -> tuple[Path, list[Path]]:
    """Return the folder that Ultralytics would give a new run, and the folders of earlier runs of the same name.

    Args:
        task (str): Task of the model.
        keys (dict[str, Any]): Ultralytics' keys; project, name, exist_ok and save_dir decide.

    Returns:
        new (Path): A folder for a new run, not made yet.
        earlier (list[Path]): Existing folders of that name, the newest first.
    """
    places = {k: v for k, v in keys.items() if k in ("project", "name", "exist_ok", "save_dir")}
    named: dict[str, Any] = {"mode": "predict", "task": task, **places}
    new = Path(get_save_dir(get_cfg(overrides=named)))
    first = Path(get_save_dir(get_cfg(overrides={**named, "exist_ok": True})))
    numbered = takewhile(Path.exists, (first.with_name(f"{first.name}-{n}") for n in count(2)))
    return new, [p for p in [first, *numbered][::-1] if p.is_dir()]


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Ultralytics' log lines about every batch."""
    level = LOGGER.level
    LOGGER.setLevel(logging.ERROR)
    try:
        yield
    finally:
        LOGGER.setLevel(level)
