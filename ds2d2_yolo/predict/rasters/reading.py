"""Read windows of scenes: GeoTIFF, tiled and stripped TIFF and JPEG2000 window by window, other formats completely.

JPEG2000 files should be tiled: OpenJPEG allocates memory for a complete tile of the file, which `memory=` does not
bound.

*Bands*: those named by `bands=`; otherwise the ones that the file calls red, green and blue; otherwise the first ones.
A single band is repeated for a model of three channels; a palette becomes its colours. A model of four channels gets
blue, green, red and the fourth of a file that names these, in the order in which Ultralytics reads them for training.
OpenCV (5.0) also multiplies the colours there by a fourth band that is marked as alpha; this module does not: mark
none. *Stretch*: data of other than 8 bits are stretched band by band between two percentiles (2 and 98) of a sample: up
to 64 windows of 256 px spread over the scene, without nodata. All tiles of a scene use the same values. Nodata pixels
become 0.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import PngImagePlugin

from ds2d2_yolo.errors import BadUseError, DS2D2Error
from ds2d2_yolo.predict.options import PredictOptions
from ds2d2_yolo.predict.rasters.exif_orientation import Orientation, orientation_of
from ds2d2_yolo.predict.rasters.georeference import Georeference, georeference_of
from ds2d2_yolo.predict.rasters.raster_bands import Pixels, bits_of, chosen_bands, is_masked, palette_of
from ds2d2_yolo.utils.stretch import percentile_limits, sample_windows, stretch

Raw = NDArray[Any]

UNWINDOWED_DRIVERS = frozenset({"PNG", "JPEG", "BMP", "GIF", "WEBP"})
UNWINDOWED_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
GIB = 2**30
# GDAL reads .aux.xml files; it writes none for datasets that are open for reading, unless statistics are asked for
SIDECARS = {"GDAL_PAM_ENABLED": True}
STRIP = 2**19  # pixels that are read at once for the thumbnail


def need_rasterio(setting: str = "slice=") -> ModuleType:
    """Return rasterio, or raise the error that names the extra with rasterio and shapely.

    Args:
        setting (str): The setting that needs it.

    Returns:
        (ModuleType): rasterio, its windows imported.

    Raises:
        BadUseError: If it, or shapely, is not installed.
    """
    try:
        import rasterio
        import rasterio.windows
        import shapely  # noqa: F401  merging needs it: its absence is an error before the first tile is read
    except ImportError as e:
        raise BadUseError(f"{setting} needs {e.name}: pip install 'ds2d2-yolo[geo]'") from e
    module: ModuleType = rasterio
    return module


class DamagedImageError(DS2D2Error):
    """An image whose pixels cannot be read."""


class UnreadableImageError(BadUseError):
    """A file that is no image, or an image in a format that GDAL does not know."""


class Scene:
    """An open image of any size whose windows are read as 8-bit model input.

    Attributes:
        path (Path): The file.
        width (int): Width in pixels.
        height (int): Height in pixels.
        georeference (Georeference): Reference system and transform. A georeferenced image keeps the orientation of its
            stored pixels, which its transform refers to.
        windowed (bool): Whether windows are read from the file; otherwise the file is decoded completely.
    """

    def __init__(self, path: Path, dataset: Any, channels: int, options: PredictOptions) -> None:
        """Check bands and memory without decoding pixels. `open_scene` creates scenes."""
        self.path, self._data, self._options = path, dataset, options
        self.width, self.height = int(dataset.width), int(dataset.height)
        self.georeference = georeference_of(path, dataset)
        self.windowed = dataset.driver not in UNWINDOWED_DRIVERS
        self._palette = None if options.bands else palette_of(dataset)
        self._bands = chosen_bands(path, dataset, options.bands, channels, self._palette is not None)
        self._dtype = np.result_type(*(np.dtype(dataset.dtypes[b - 1]) for b in self._bands))
        if self._dtype.kind == "c":
            raise BadUseError(f"{path} holds complex numbers: convert it to a real type first")
        self._mask = is_masked(dataset, self._bands)
        self._bits = bits_of(dataset) if self._palette is None else 8
        self._decoded: tuple[Raw, Raw | None] | None = None
        self._limits: NDArray[np.float64] | None = None
        georeferenced = dataset.crs is not None or self.georeference.transform is not None
        self._orientation = Orientation() if georeferenced else orientation_of(path, dataset, channels)
        self.width, self.height = self._orientation.upright_size((self.width, self.height))
        self._refuse_too_large()

    def tile(self, window: tuple[int, int, int, int]) -> Pixels | None:
        """Return a window as model input.

        Args:
            window (tuple[int, int, int, int]): Left, top, right and bottom in pixels.

        Returns:
            (np.ndarray | None): Pixels (H, W, C), uint8, BGR where C is 3; None if all pixels are nodata.
        """
        raw, valid = self._read(window)
        if valid is not None and not valid.any():
            return None
        pixels = self._palette[raw[0]].transpose(2, 0, 1) if self._palette is not None else self._eight_bit(raw)
        if valid is not None:
            pixels = np.where(valid, pixels, np.uint8(0))
        image = pixels.transpose(1, 2, 0)
        result: Pixels = np.ascontiguousarray(image[:, :, ::-1] if image.shape[2] == 3 else image)
        return result

    def thumbnail(self, side: int) -> Pixels:
        """Return the scene as a BGR picture of at most `side` pixels a side, read strip by strip.

        Args:
            side (int): Longest side of the picture in pixels.

        Returns:
            (np.ndarray): Pixels (H, W, 3), uint8, BGR; nodata is 0.
        """
        factor = max(1.0, max(self.width, self.height) / side)
        across, down = max(1, round(self.width / factor)), max(1, round(self.height / factor))
        columns = ((np.arange(across) + 0.5) * self.width / across).astype(int)
        rows = ((np.arange(down) + 0.5) * self.height / down).astype(int)
        picture = np.zeros((down, across, 3), np.uint8)
        high = max(1, STRIP // self.width)
        for top in range(0, self.height, high):
            inside = (rows >= top) & (rows < top + high)
            strip = self.tile((0, top, self.width, min(self.height, top + high))) if inside.any() else None
            if strip is not None:
                shown = [0, -(-strip.shape[2] // 2) - 1, 2 if strip.shape[2] == 4 else -1]
                picture[inside] = strip[rows[inside] - top][:, columns][:, :, shown]
        return picture

    def _read(self, window: tuple[int, int, int, int]) -> tuple[Raw, NDArray[np.bool_] | None]:
        """Return the raw bands (C, H, W) of a window and its mask of valid pixels (H, W), None if all are valid."""
        left, top, right, bottom = window
        try:
            if not self.windowed:
                raw, valid = self._decode()
                inside = (slice(top, bottom), slice(left, right))
                return raw[:, inside[0], inside[1]], None if valid is None else valid[inside] > 0
            stored = self._orientation.stored_window(window, (self.width, self.height))
            area = need_rasterio().windows.Window(*stored[:2], stored[2] - stored[0], stored[3] - stored[1])
            raw = self._orientation.apply(self._data.read(self._bands, window=area))
            return raw, self._orientation.apply(self._data.dataset_mask(window=area) > 0) if self._mask else None
        except need_rasterio().errors.RasterioError as e:
            at = "" if not self.windowed else f" at pixels {left},{top} to {right},{bottom}"
            raise DamagedImageError(f"{self.path} is cut off or damaged{at}: {first_line(e)}") from e

    def _decode(self) -> tuple[Raw, Raw | None]:
        """Return all bands (C, H, W) and the mask (H, W), decoded once and upright."""
        if self._decoded is None:
            if self._data.driver == "PNG":
                _check_png(self.path)
            mask = self._orientation.apply(self._data.dataset_mask()) if self._mask else None
            self._decoded = self._orientation.apply(self._data.read(self._bands)), mask
        return self._decoded

    def _eight_bit(self, raw: Raw) -> Pixels:
        """Return raw bands (C, H, W) as 8 bits."""
        if self._limits is None:
            self._limits = self._find_limits()
        if not self._limits.size:
            eight = np.asarray(raw, np.uint8)
            return eight if self._bits == 8 else eight * np.uint8(255 // (2**self._bits - 1))
        return stretch(raw, self._limits)

    def _find_limits(self) -> NDArray[np.float64]:
        """Return the values (C, 2) that become 0 and 255; empty if values are not stretched."""
        eight = self._dtype == np.uint8
        percentiles = self._options.percentiles(bool(eight))
        if percentiles is None:
            if eight:
                return np.zeros((0, 2))
            info = None if self._dtype.kind == "f" else np.iinfo(self._dtype)
            return np.array([(0.0, 1.0) if info is None else (max(info.min, 0), info.max)] * len(self._bands), float)
        parts: list[list[Raw]] = [[] for _ in self._bands]
        for window in sample_windows(self.width, self.height):
            raw, valid = self._read(window)
            for band, values in enumerate(raw):
                good = np.isfinite(values) if valid is None else np.isfinite(values) & valid
                parts[band].append(values[good])
        return percentile_limits(parts, percentiles)

    def _refuse_too_large(self) -> None:
        """Refuse an image, or blocks of a file, that do not fit the memory bound."""
        size = self._dtype.itemsize * len(self._bands)
        limit = self._options.memory * GIB - _cache(self._options.memory, self.windowed)
        if not self.windowed:
            need, reading = self.width * self.height * (size + int(self._mask)), "decoded whole, as its format wants"
            hint = "or convert it to a tiled TIFF: gdal_translate -co TILED=YES -co COMPRESS=DEFLATE"
        else:
            high, wide = max(self._data.block_shapes)
            need, reading = high * wide * size, f"read in its blocks of {wide} x {high} px"
            hint = "or rewrite it in tiles: gdal_translate -co TILED=YES -co COMPRESS=DEFLATE"
        if need > limit:
            raise BadUseError(
                f"{self.path} ({self.width} x {self.height} px, {len(self._bands)} bands, {self._dtype}) needs "
                f"{amount(need)} {reading}: give memory={_sufficient_memory(need, self.windowed)} or more, {hint}"
            )


@contextmanager
def open_scene(path: Path, channels: int, options: PredictOptions) -> Iterator[Scene]:
    """Open an image for reading in windows.

    Args:
        path (Path): The file.
        channels (int): Channels that the model takes.
        options (PredictOptions): Bands, stretch and memory.

    Yields:
        (Scene): The open image.

    Raises:
        UnreadableImageError: If it is no image.
        BadUseError: If its bands do not fit, or it needs more memory than allowed.
    """
    rasterio = need_rasterio()
    cache = _cache(options.memory, path.suffix.lower() not in UNWINDOWED_SUFFIXES)
    settings = rasterio.Env(GDAL_CACHEMAX=cache, GDAL_ERROR_ON_LIBJPEG_WARNING=True, **SIDECARS)
    with settings, _opened(path) as dataset:
        if not dataset.count:
            raise BadUseError(f"{path} holds no bands: name one of its subdatasets")
        yield Scene(path, dataset, channels, options)


def _check_png(path: Path) -> None:
    """Refuse a PNG file that is truncated or damaged: GDAL 3.10 decodes missing parts as noise, without an error."""
    try:
        with PngImagePlugin.PngImageFile(path) as file:  # Image.open would refuse large images
            file.verify()
    except (OSError, SyntaxError) as e:
        raise DamagedImageError(f"{path} is cut off or damaged: {first_line(e)}") from e


def amount(size: float) -> str:
    """Return a number of bytes as text.

    Args:
        size (float): Bytes.

    Returns:
        (str): In MiB or GiB.
    """
    return f"{size / GIB:.2f} GiB" if size >= GIB else f"{size / 2**20:.0f} MiB"


def _sufficient_memory(need: int, windowed: bool) -> float:
    """Return the `memory` in GiB, rounded up to tenths, that is sufficient for `need` bytes."""
    return math.ceil((need * 2 if windowed else need + 2**25) / GIB * 10) / 10


def _cache(memory: float, windowed: bool) -> int:
    """Return the size of GDAL's cache of decoded blocks in bytes, for a row of tiles to decode each block once."""
    return min(int(memory * GIB / 2), GIB if windowed else 2**25)


def read_georeference(path: Path, channels: int) -> Georeference:
    """Return the georeference of an image as Ultralytics reads it: upright.

    Args:
        path (Path): The file.
        channels (int): Channels that the model takes.

    Returns:
        (Georeference): None of its parts if GDAL cannot read the file (a video, for example).
    """
    with need_rasterio().Env(**SIDECARS):
        try:
            with _opened(path) as dataset:
                orientation = orientation_of(path, dataset, channels)
                size = orientation.upright_size((dataset.width, dataset.height))
                return georeference_of(path, dataset).of_upright(orientation, size)
        except BadUseError:
            return Georeference()


def _opened(path: Path) -> Any:
    """Return an open dataset of rasterio's."""
    rasterio = need_rasterio()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)  # most images have none
        try:
            return rasterio.open(path)
        except rasterio.errors.RasterioIOError as e:
            raise UnreadableImageError(f"{path} cannot be read as an image: {first_line(e)}") from e


def first_line(error: Exception) -> str:
    """Return the first line of an error, or of its cause, which is more specific."""
    return (str(error.__cause__ or error).strip().splitlines() or [type(error).__name__])[0]
