"""A prediction with a detector that finds what is bright in a tile."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from ultralytics.utils.patches import imread

from ds2d2_yolo.bridge.inference import tile_detector
from ds2d2_yolo.bridge.inference.tile_detector import light_results
from ds2d2_yolo.predict import run
from ds2d2_yolo.predict.sources import images_of
from ds2d2_yolo.utils.detections import Detections
from tests.helpers.rasters import NAMES


class BrightDetector:
    """Finds bright things; class 1 is what is brighter in the last channel."""

    calls = 0
    stop_at = 10**9  # calls after which it is interrupted, as by Ctrl-C

    def __init__(self, yolo: Any, keys: dict[str, Any], tile: int) -> None:
        self.oriented, self.names, self.channels, self.scale = yolo.task == "obb", NAMES, 3, 1.0

    def __call__(self, tiles: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        kind = type(self)
        kind.calls += 1
        if kind.calls >= kind.stop_at:
            raise KeyboardInterrupt
        return [Detections.from_rows(np.array(self._find(tile), np.float64), self.oriented) for tile in tiles]

    def _find(self, tile: NDArray[np.uint8]) -> list[list[float]]:
        rows = []
        contours, _ = cv2.findContours((tile.max(2) > 150).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        for contour in contours:
            if len(contour) < 8:
                continue
            if self.oriented:
                (x, y), (w, h), degrees = cv2.minAreaRect(contour)
            else:
                left, top, w, h = cv2.boundingRect(contour)
                (x, y), (w, h), degrees = (left + w / 2 - 0.5, top + h / 2 - 0.5), (w - 1, h - 1), 0.0
            blue, _, red = tile[int(y), int(x)]
            # contours run through pixel centres: half a pixel to every side is missing
            rows.append([x + 0.5, y + 0.5, w + 1, h + 1, np.deg2rad(degrees), 0.9, float(red > blue)])
        return rows


@pytest.fixture
def bright(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    """Run `predict` with the bright detector in the test's folder, in tiles or (slice=None) as Ultralytics reads.

    `task` is the task of the model.
    """

    class Detector(BrightDetector):
        pass

    def ultralytics_results(yolo: Any, source: str, keys: dict[str, Any]) -> Iterator[Any]:
        yolo.predictor = SimpleNamespace(save_dir=tmp_path / "runs" / "p", model=SimpleNamespace(channels=3))
        detector = Detector(yolo, keys, 0)
        for path in images_of(source):
            pixels = imread(str(path))
            (detections,) = detector([pixels])
            yield light_results(path, (pixels.shape[1], pixels.shape[0]), NAMES, detections)

    def go(task: str = "obb", stop_at: int = 10**9, **keys: Any) -> Any:
        model = tmp_path / "model.pt"
        if not model.exists():
            model.write_bytes(b"model")
        Detector.calls, Detector.stop_at = 0, stop_at
        monkeypatch.setattr(tile_detector, "TileDetector", Detector)
        monkeypatch.setattr(tile_detector, "plain_results", ultralytics_results)
        stub = SimpleNamespace(task=task, names=NAMES, model_name=str(model))
        monkeypatch.setattr(tile_detector, "load_detector", lambda _: stub)
        place = {"project": str(tmp_path / "runs"), "name": "p"}
        tiles = {"slice": 200, "overlap": 0.35} if keys.get("slice", 200) else {}
        return run.predict(**{"model": str(model), **place, **tiles, **keys})

    go.detector = Detector  # type: ignore[attr-defined]
    return go
