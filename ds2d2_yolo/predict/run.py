"""`predict`: as Ultralytics does it, or tile by tile within a memory bound.

**Memory.** With `slice`, pixels take at most `memory` GiB: half of it for the blocks of the file that are kept decoded,
so that a row of tiles decodes them once, the rest for tiles or, where a format has to be decoded whole, for the image.
Beside that stand the program with its model (imgsz and batch decide, not the scene) and the detections: 2 to 3 kB
for each while they are merged and written.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ds2d2_yolo.bridge.data.security import refuse_program, safe_loading
from ds2d2_yolo.bridge.inference import tile_detector as detecting
from ds2d2_yolo.bridge.inference.tile_detector import Detector
from ds2d2_yolo.errors import BadUseError
from ds2d2_yolo.predict.geojson import write_geojson
from ds2d2_yolo.predict.merging import Floats, Ints, merge
from ds2d2_yolo.predict.options import PredictOptions
from ds2d2_yolo.predict.reading import (
    GEOREFERENCED,
    GIB,
    DamagedImageError,
    Scene,
    amount,
    georeference,
    need_rasterio,
    open_scene,
)
from ds2d2_yolo.predict.result import ImageCount, Predicted
from ds2d2_yolo.predict.sources import images_of
from ds2d2_yolo.predict.tile_cache import Parts, goes_on, plan_of
from ds2d2_yolo.predict.tiles import windows
from ds2d2_yolo.predict.writing import PICTURE, TASKS, Found, refuse_unfit_names, write_csv, write_dota, write_picture
from ds2d2_yolo.utils.atomic_files import replacing

NMS_IOU = 0.7  # Ultralytics' default of iou=
BATCH = 4  # tiles that go through the model at once, unless batch= says otherwise
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


def predict(**keys: Any) -> Predicted:
    """Detect objects in images, or with `slice` in scenes of any size.

    Args:
        **keys (Any): Options (see `PredictOptions`) and Ultralytics' prediction settings, such as conf, iou, imgsz,
            device, half, classes, max_det (of one tile), agnostic_nms, batch, project, name, exist_ok, save (a small
            picture) and save_txt.

    Returns:
        (Predicted): Results and files.

    Raises:
        BadUseError: If a key, model or source does not fit, before anything expensive.
        DS2D2Error: If an image turns out to be damaged; the others are finished, and their files written.

    Examples:
        >>> from ds2d2_yolo.predict import predict
        >>> predict(model="best.pt", source="scene.tif", slice=1024)  # doctest: +SKIP
    """
    options = PredictOptions.of(keys, "predict", detecting.passing_keys())
    theirs = PredictOptions.split(keys)[1]
    missing = [f"{k}=" for k in ("model", "source") if getattr(options, k) is None]
    if missing:
        raise BadUseError(f"{', '.join(missing)} missing: ds2d2-yolo predict model=best.pt source=scene.tif slice=1024")
    lost = [k for k in ("overlap", "bands", "stretch", "memory", "seam_iou") if k in keys]
    if lost and not options.slice:
        raise BadUseError(f"{', '.join(f'{k}=' for k in lost)} only mean something with slice=")
    detecting.check_passing(theirs, tiled=bool(options.slice))
    images = images_of(str(options.source)) if options.slice or options.wanted() else []
    with safe_loading(options.safe):
        if options.safe:
            refuse_program(str(options.model))
        yolo = detecting.load_detector(str(options.model))
        formats = _formats(options, yolo.task == "obb", images, yolo.names)
        if options.slice:
            return _sliced(options, theirs, yolo, images, formats)
        if "geojson" in formats and any(image.suffix.lower() in GEOREFERENCED for image in images):
            need_rasterio("formats=geojson of a TIFF or JPEG 2000")
        return _plain(options, theirs, yolo, formats)


def _formats(options: PredictOptions, oriented: bool, images: list[Path], names: dict[int, str]) -> set[str]:
    """Return the formats to write, 'dota' resolved; refuse what the model or the names do not allow."""
    formats = set(options.wanted())
    if "task1" in formats and not oriented:
        raise BadUseError("formats=task1 wants oriented boxes, the model is a detect model: task2 is its DOTA file")
    if "dota" in formats:
        formats = (formats - {"dota"}) | {"task2"} | ({"task1"} if oriented else set())
    if {"task1", "task2"} & formats:
        refuse_unfit_names(images, names)
    return formats


def _plain(options: PredictOptions, theirs: dict[str, Any], yolo: Any, formats: set[str]) -> Predicted:
    """Let Ultralytics predict, and write the formats behind it."""
    results, images = [], []
    theirs = {**theirs, "save": True} if "picture" in formats else theirs  # Ultralytics' own, in its full size
    for result in detecting.plain_results(yolo, str(options.source), theirs):
        size = (result.orig_shape[1], result.orig_shape[0])
        path, rows = Path(result.path), detecting.rows_of(result)
        crs, transform = georeference(path) if "geojson" in formats else (None, None)
        images.append(ImageCount(Found(path, size, rows, crs, transform)))
        result.orig_img = np.broadcast_to(np.zeros((), np.uint8), result.orig_img.shape)
        results.append(result)
    folder, oriented = Path(yolo.predictor.save_dir), yolo.task == "obb"
    if not results:
        detecting.drop_empty(folder)
        raise BadUseError(f"source={options.source} holds no image that can be read: look at the warnings above")
    files: list[Path] = []
    for image, stem in zip(images, _stems([i.found.path for i in images]), strict=True):
        if "geojson" in formats:
            files.append(write_geojson(folder / f"{stem}.geojson", image.found, yolo.names, oriented))
    files += _tables(folder, formats, [i.found for i in images], yolo.names)
    return Predicted(results, images, dict(yolo.names), folder if folder.is_dir() else None, files)


def _sliced(
    options: PredictOptions, theirs: dict[str, Any], yolo: Any, images: list[Path], formats: set[str]
) -> Predicted:
    """Predict tile by tile, image after image."""
    need_rasterio()
    run = _Run(options, theirs, yolo, images, formats)
    damaged: list[str] = []
    counts: list[ImageCount] = []
    try:
        for index, path in enumerate(images):
            try:
                counts.append(run.image(index, path))
            except DamagedImageError as e:
                damaged.append(str(e))
    finally:
        run.bar.close()
    run.files += _tables(run.folder, formats, [c.found for c in counts], run.detector.names)
    if damaged:
        more = f"; {len(damaged) - 1} more of {len(images)} images failed" if len(damaged) > 1 else ""
        others = f"; the other {len(counts)} are in {run.folder}" if counts else ""
        raise DamagedImageError(damaged[0] + more + others)
    run.parts.remove()
    results = [
        detecting.light_results(c.found.path, c.found.size, run.detector.names, c.found.rows, run.detector.oriented)
        for c in counts
    ]
    return Predicted(results, counts, run.detector.names, run.folder, run.files)


class _Run:
    """One prediction in tiles: its detector, folder, parts and progress."""

    def __init__(
        self, options: PredictOptions, theirs: dict[str, Any], yolo: Any, images: list[Path], formats: set[str]
    ) -> None:
        """Check all images, set up the detector, and find the folder of an unfinished run or a new one."""
        side = int(options.slice or 0)
        self.options, self.images, self.theirs = options, images, theirs
        self.formats = formats | ({"picture"} if theirs.get("save") else set())
        self.batch = max(1, int(theirs.get("batch", BATCH)))
        self.detector = Detector(yolo, theirs, side)
        need = self.batch * side * side * self.detector.channels * 8
        if need > options.memory * GIB / 2:
            raise BadUseError(f"batch={self.batch} of {side} px take {amount(need)}: lower batch= or raise memory=")
        tiles = 0
        for path in images:
            with open_scene(path, self.detector.channels, options) as scene:
                tiles += len(self._windows(scene))
        deciding = {k: v for k, v in theirs.items() if k not in NOT_DECIDING}
        plan = plan_of(str(options.model), images, {**options.of_tiles(), **deciding})
        new, earlier = detecting.run_folders(yolo.task, theirs)
        self.folder = next((f for f in earlier if goes_on(f, plan)), new)
        self.parts = Parts(self.folder, plan)
        self.stems = _stems(images)
        self.files: list[Path] = []
        self.bar = detecting.progress(tiles, "tiles")

    def image(self, index: int, path: Path) -> ImageCount:
        """Detect, merge and write what belongs to one image alone."""
        with open_scene(path, self.detector.channels, self.options) as scene:
            grid = self._windows(scene)
            rows, tile, empty = self._detections(index, scene, grid)
            merged = merge(
                rows, tile, grid, (scene.width, scene.height),
                iou=self.options.seam_iou, nms=float(self.theirs.get("iou") or NMS_IOU),
                agnostic=bool(self.theirs.get("agnostic_nms")), oriented=self.detector.oriented,
                margin=2 * max(1.0, self.detector.scale),
            )  # fmt: skip
            found = Found(path, (scene.width, scene.height), merged.rows, scene.crs, scene.transform)
            self._write(scene, found, self.stems[index])
        return ImageCount(found, len(grid), empty, replace(merged, rows=merged.rows[:0]))

    def _windows(self, scene: Scene) -> Ints:
        """Return the tiles of a scene."""
        return windows(scene.width, scene.height, int(self.options.slice or 0), self.options.shared)

    def _detections(self, index: int, scene: Scene, grid: Ints) -> tuple[Floats, Ints, int]:
        """Return all detections in pixels of the scene, the tile of each, and the number of empty tiles."""
        found = []
        for number, top in enumerate(np.unique(grid[:, 1])):
            tiles = np.flatnonzero(grid[:, 1] == top)
            row = self.parts.load(index, number)
            if row is None:
                row = self._row(scene, grid, tiles)
                self.parts.save(index, number, *row)
            self.bar.update(len(tiles))
            found.append(row)
        return (
            np.concatenate([f[0] for f in found]), np.concatenate([f[1] for f in found]), sum(f[2] for f in found)
        )  # fmt: skip

    def _row(self, scene: Scene, grid: Ints, tiles: Ints) -> tuple[Floats, Ints, int]:
        """Detect in one row of tiles."""
        rows, which = [np.zeros((0, 7))], [np.zeros(0, np.int64)]
        seen = 0
        for batch in self._batches(scene, grid, tiles):
            seen += len(batch)
            for (n, _), found in zip(batch, self.detector([pixels for _, pixels in batch]), strict=True):
                found[:, :2] += grid[n, :2]
                rows.append(found)
                which.append(np.full(len(found), n, np.int64))
        return np.concatenate(rows), np.concatenate(which), len(tiles) - seen

    def _batches(self, scene: Scene, grid: Ints, tiles: Ints) -> Iterator[list[tuple[int, Any]]]:
        """Yield batches of tile numbers and pixels, without tiles that hold no data."""
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

    def _write(self, scene: Scene, found: Found, stem: str) -> None:
        """Write the files of one image."""
        names, oriented = self.detector.names, self.detector.oriented
        if "geojson" in self.formats:
            self.files.append(write_geojson(self.folder / f"{stem}.geojson", found, names, oriented))
        if "picture" in self.formats:
            side = min(PICTURE, int((self.options.memory * GIB / 12) ** 0.5))  # it and its copy take half the bound
            self.files.append(write_picture(self.folder / f"{stem}.jpg", scene.shrunk(side), found))
        if self.theirs.get("save_txt"):
            result = detecting.light_results(found.path, found.size, names, found.rows, oriented)
            target = self.folder / "labels" / f"{stem}.txt"
            with replacing(target) as part:
                part.touch()
                result.save_txt(part)
            self.files.append(target)


def _tables(folder: Path, formats: set[str], found: list[Found], names: dict[int, str]) -> list[Path]:
    """Write the files that hold all images."""
    files = []
    if "csv" in formats:
        files += write_csv(folder, found, names)
    for task in TASKS:
        if task.lower() in formats:
            files += write_dota(folder, task, found, names)
    return files


def _stems(images: list[Path]) -> list[str]:
    """Return a file name without suffix for each image, each once."""
    taken: set[str] = set()
    stems = []
    for path in images:
        stem, number = path.stem, 1
        while stem.casefold() in taken:  # some file systems take 'A' for 'a'
            number += 1
            stem = f"{path.stem}-{number}"
        taken.add(stem.casefold())
        stems.append(stem)
    return stems
