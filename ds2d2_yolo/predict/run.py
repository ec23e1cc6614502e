"""`predict`: Ultralytics' prediction, or detection tile by tile within a memory bound.

**Memory.** With `slice`, pixels take at most `memory` GiB. Half of it caches decoded blocks of the file, so that a row
of tiles decodes each block once; the other half holds the tiles or, for formats that are decoded completely, the image.
Not included are the program with its model (this depends on imgsz and batch, not on the scene) and the detections: 2 to
3 kB each while they are merged and written.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ds2d2_yolo.bridge.data.class_map import check_classes
from ds2d2_yolo.bridge.data.security import refuse_program, safe_loading
from ds2d2_yolo.bridge.inference import tile_detector
from ds2d2_yolo.errors import BadUseError
from ds2d2_yolo.predict.geojson import write_geojson
from ds2d2_yolo.predict.merging import merge
from ds2d2_yolo.predict.options import PredictOptions
from ds2d2_yolo.predict.plain import predict_plain
from ds2d2_yolo.predict.rasters.reading import (
    GIB,
    DamagedImageError,
    Scene,
    UnreadableImageError,
    amount,
    need_rasterio,
    open_scene,
)
from ds2d2_yolo.predict.result import ImageSummary, Prediction
from ds2d2_yolo.predict.sources import images_of
from ds2d2_yolo.predict.tile_cache import TileCache, TileRow, is_unfinished, plan_of
from ds2d2_yolo.predict.tiles import windows
from ds2d2_yolo.predict.writing import (
    PICTURE,
    ImageDetections,
    check_dota_names,
    unique_stems,
    write_picture,
    write_tables,
)
from ds2d2_yolo.utils.atomic_files import replacing
from ds2d2_yolo.utils.detections import Detections, Ints
from ds2d2_yolo.utils.progress import Task, tracked

NMS_IOU = 0.7  # Ultralytics' default of iou=
BATCH = 4  # tiles that go through the model at once, unless batch= says otherwise
# Ultralytics' keys that change no detection: a run continues although they differ
NOT_DECIDING = frozenset(
    {
        "batch",
        "exist_ok",
        "line_width",
        "name",
        "plots",
        "project",
        "resume",
        "save",
        "save_dir",
        "save_txt",
        "verbose",
        "workers",
    }
)


def predict(**keys: Any) -> Prediction:
    """Detect objects in images, or with `slice` in scenes of any size.

    Args:
        **keys (Any): Options (see `PredictOptions`) and Ultralytics' prediction settings, such as conf, iou, imgsz,
            device, half, classes, max_det (of one tile), agnostic_nms, batch, project, name, exist_ok, save (a small
            picture) and save_txt.

    Returns:
        (Prediction): Results and files.

    Raises:
        BadUseError: If a key, model or source does not fit, before anything expensive.
        DS2D2Error: If some images are damaged or no images; the others are finished, and their files written.

    Examples:
        >>> from ds2d2_yolo.predict import predict
        >>> predict(model="best.pt", source="scene.tif", slice=1024)  # doctest: +SKIP
    """
    options = PredictOptions.of(keys, "predict", tile_detector.ultralytics_keys())
    ultralytics_args = PredictOptions.split(keys)[1]
    missing = [f"{k}=" for k in ("model", "source") if getattr(options, k) is None]
    if missing:
        raise BadUseError(f"{', '.join(missing)} missing: ds2d2-yolo predict model=best.pt source=scene.tif slice=1024")
    meaningless = [k for k in ("overlap", "bands", "stretch", "memory", "seam_iou") if k in keys]
    if meaningless and not options.slice:
        raise BadUseError(f"{', '.join(f'{k}=' for k in meaningless)} only mean something with slice=")
    tile_detector.check_ultralytics_args(ultralytics_args, tiled=bool(options.slice))
    images = images_of(str(options.source)) if options.slice or options.output_formats() else []
    with safe_loading(options.safe):
        if options.safe:
            refuse_program(str(options.model))
        yolo = tile_detector.load_detector(str(options.model))
        check_classes(ultralytics_args.get("classes"), len(yolo.names), "the model has")
        formats = _formats(options, yolo.task == "obb", images, yolo.names)
        if options.slice:
            return _sliced(options, ultralytics_args, yolo, images, formats)
        return predict_plain(options, ultralytics_args, yolo, formats)


def _formats(options: PredictOptions, oriented: bool, images: list[Path], names: dict[int, str]) -> set[str]:
    """Return the formats to write, with 'dota' resolved; refuse those that the model or the names do not allow."""
    formats = set(options.output_formats())
    if "task1" in formats and not oriented:
        raise BadUseError("formats=task1 wants oriented boxes, the model is a detect model: task2 is its DOTA file")
    if "dota" in formats:
        formats = (formats - {"dota"}) | {"task2"} | ({"task1"} if oriented else set())
    if {"task1", "task2"} & formats:
        check_dota_names(images, names)
    return formats


def _sliced(
    options: PredictOptions, ultralytics_args: dict[str, Any], yolo: Any, images: list[Path], formats: set[str]
) -> Prediction:
    """Predict tile by tile, image after image."""
    need_rasterio()
    run = _TiledRun(options, ultralytics_args, yolo, images, formats)
    damaged: list[str] = []
    summaries: list[ImageSummary] = []
    with tracked("tiles", run.tiles, sys.stderr, shown=ultralytics_args.get("verbose", True), fill=False) as task:
        for index, path in enumerate(images):
            try:
                summaries.append(run.detect(index, path, task))
            except (DamagedImageError, UnreadableImageError) as e:
                damaged.append(str(e))
    run.files += write_tables(run.folder, formats, [s.image for s in summaries], run.detector.names)
    if damaged:
        more = f"; {len(damaged) - 1} more of {len(images)} images failed" if len(damaged) > 1 else ""
        others = f"; the other {len(summaries)} are in {run.folder}" if summaries else ""
        raise DamagedImageError(damaged[0] + more + others)
    run.cache.remove()
    results = [
        tile_detector.light_results(s.image.path, s.image.size, run.detector.names, s.image.detections)
        for s in summaries
    ]
    return Prediction(results, summaries, run.detector.names, run.folder, run.files)


class _TiledRun:
    """One prediction in tiles: its detector, folder and cache."""

    def __init__(
        self,
        options: PredictOptions,
        ultralytics_args: dict[str, Any],
        yolo: Any,
        images: list[Path],
        formats: set[str],
    ) -> None:
        """Set up the detector, check all images, and choose the folder of an unfinished run or a new one.

        Raises:
            BadUseError: If an image does not fit, or none can be read.
        """
        side = int(options.slice or 0)
        self.options, self.images, self.ultralytics_args = options, images, ultralytics_args
        self.formats = formats | ({"picture"} if ultralytics_args.get("save") else set())
        self.batch = max(1, int(ultralytics_args.get("batch", BATCH)))
        self.detector = tile_detector.TileDetector(yolo, ultralytics_args, side)
        need = self.batch * side * side * self.detector.channels * 8
        if need > options.memory * GIB / 2:
            raise BadUseError(f"batch={self.batch} of {side} px take {amount(need)}: lower batch= or raise memory=")
        self.tiles = self._count_tiles()
        deciding = {k: v for k, v in ultralytics_args.items() if k not in NOT_DECIDING}
        plan = plan_of(str(options.model), images, {**options.deciding(), **deciding})
        new, earlier = tile_detector.run_folders(yolo.task, ultralytics_args)
        self.folder = next((f for f in earlier if is_unfinished(f, plan)), new)
        self.cache = TileCache(self.folder, plan, self.detector.oriented)
        self.stems = unique_stems(images)
        self.files: list[Path] = []

    def _count_tiles(self) -> int:
        """Return the number of tiles of the images that can be read; refuse images that do not fit, and if none can."""
        tiles = 0
        unreadable: list[UnreadableImageError] = []
        for path in self.images:
            try:
                with open_scene(path, self.detector.channels, self.options) as scene:
                    tiles += len(self._windows(scene))
            except UnreadableImageError as e:
                unreadable.append(e)
        if len(unreadable) == len(self.images):
            raise unreadable[0]
        return tiles

    def detect(self, index: int, path: Path, task: Task) -> ImageSummary:
        """Detect and merge the objects of one image, and write the files of that image.

        Args:
            index (int): Index of the image in the run.
            path (Path): The image.
            task (Task): Takes the progress, in tiles.

        Returns:
            (ImageSummary): Its detections and counts.
        """
        with open_scene(path, self.detector.channels, self.options) as scene:
            grid = self._windows(scene)
            tile_rows = self._detections(index, scene, grid, task)
            size = scene.width, scene.height
            merged = merge(
                tile_rows.detections, tile_rows.tile, grid, size,
                iou=self.options.seam_iou, nms=float(self.ultralytics_args.get("iou") or NMS_IOU),
                agnostic=bool(self.ultralytics_args.get("agnostic_nms")), margin=2 * max(1.0, self.detector.scale),
            )  # fmt: skip
            image = ImageDetections(path, size, merged.detections, scene.georeference)
            self._write(scene, image, self.stems[index])
        return ImageSummary(image, len(grid), tile_rows.empty, replace(merged, detections=merged.detections[:0]))

    def _windows(self, scene: Scene) -> Ints:
        """Return the tiles of a scene."""
        return windows(scene.width, scene.height, int(self.options.slice or 0), self.options.shared)

    def _detections(self, index: int, scene: Scene, grid: Ints, task: Task) -> TileRow:
        """Return the detections of all rows of tiles, from the cache where a row is finished."""
        rows = []
        for number, top in enumerate(np.unique(grid[:, 1])):
            tiles = np.flatnonzero(grid[:, 1] == top)
            row = self.cache.load(index, number)
            if row is None:
                row = self._detect_row(scene, grid, tiles)
                self.cache.save(index, number, row)
                task.advance(len(tiles))
            else:
                task.skip(len(tiles))
            rows.append(row)
        detections = Detections.concatenate([row.detections for row in rows], self.detector.oriented)
        return TileRow(detections, np.concatenate([row.tile for row in rows]), sum(row.empty for row in rows))

    def _detect_row(self, scene: Scene, grid: Ints, tiles: Ints) -> TileRow:
        """Detect in one row of tiles."""
        parts: list[Detections] = []
        tile: list[int] = []
        nonempty = 0
        for batch in self._batches(scene, grid, tiles):
            nonempty += len(batch)
            for (n, _), detections in zip(batch, self.detector([pixels for _, pixels in batch]), strict=True):
                parts.append(detections.shifted(*grid[n, :2].tolist()))
                tile += [n] * len(detections)
        merged = Detections.concatenate(parts, self.detector.oriented)
        return TileRow(merged, np.array(tile, np.int64), len(tiles) - nonempty)

    def _batches(self, scene: Scene, grid: Ints, tiles: Ints) -> Iterator[list[tuple[int, Any]]]:
        """Yield batches of tile indices and pixels, without tiles that hold no data."""
        batch = []
        for n in tiles.tolist():
            left, top, right, bottom = grid[n].tolist()
            pixels = scene.tile((left, top, right, bottom))
            if pixels is not None:
                batch.append((n, pixels))
            if len(batch) == self.batch:
                yield batch
                batch = []
        if batch:
            yield batch

    def _write(self, scene: Scene, image: ImageDetections, stem: str) -> None:
        """Write the files of one image."""
        names = self.detector.names
        if "geojson" in self.formats:
            self.files.append(write_geojson(self.folder / f"{stem}.geojson", image, names))
        if "picture" in self.formats:
            side = min(PICTURE, int((self.options.memory * GIB / 12) ** 0.5))  # it and its copy take half the bound
            self.files.append(write_picture(self.folder / f"{stem}.jpg", scene.thumbnail(side), image))
        if self.ultralytics_args.get("save_txt"):
            result = tile_detector.light_results(image.path, image.size, names, image.detections)
            target = self.folder / "labels" / f"{stem}.txt"
            with replacing(target) as part:
                part.touch()
                result.save_txt(part)
            self.files.append(target)
