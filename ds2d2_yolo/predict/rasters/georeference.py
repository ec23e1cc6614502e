"""The georeference of an image: inside the file, or beside it in a world file, a .prj or a GDAL sidecar (.aux.xml).

GDAL reads world files and sidecars itself. It does not read a .prj beside an image, and it does not turn ground control
points into a transform.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ds2d2_yolo.predict.rasters.exif_orientation import Orientation

NO_GEOREFERENCE = " carries no georeference"
GEOREFERENCED = (".tif", ".tiff", ".jp2")  # formats that hold a georeference in the file
MAX_PRJ = 2**16  # bytes of a .prj file that are read


@dataclass(frozen=True)
class Georeference:
    """Reference system and transform of an image, or the reason why it has no map coordinates.

    Attributes:
        crs (Any): rasterio's coordinate reference system, None if there is none.
        transform (Any): Affine transform from pixels to `crs`, None if there is none.
        missing (str): What is missing, as the end of a sentence about the image; empty if nothing is.
        remedy (str): What the user can do about it; empty if the image carries no georeference at all.
    """

    crs: Any = None
    transform: Any = None
    missing: str = NO_GEOREFERENCE
    remedy: str = ""

    @property
    def complete(self) -> bool:
        """(bool): Whether pixels have map coordinates."""
        return not self.missing

    def of_upright(self, orientation: Orientation, size: tuple[int, int]) -> Georeference:
        """Return the georeference of the upright picture.

        Args:
            orientation (Orientation): Transformation of the stored pixels into the upright picture.
            size (tuple[int, int]): Width and height of the upright picture in pixels.

        Returns:
            (Georeference): With the transform from upright pixels to `crs`.
        """
        if self.transform is None or orientation == Orientation():
            return self
        return replace(self, transform=self.transform @ orientation.to_stored(size))


def georeference_of(path: Path, dataset: Any) -> Georeference:
    """Return the georeference of an open image.

    Args:
        path (Path): The file; a .prj beside it names the reference system if the dataset has none.
        dataset (Any): rasterio's dataset.

    Returns:
        (Georeference): Complete only if both reference system and transform are known.
    """
    crs, transform = dataset.crs, dataset.transform
    if transform.is_identity:
        return _without_transform(path, dataset)
    if crs is not None:
        return Georeference(crs, transform, missing="")
    prj = next((p for p in (path.with_suffix(".prj"), path.with_suffix(".PRJ")) if p.is_file()), None)
    if prj is None:
        remedy = f"write its WKT into {path.with_suffix('.prj')}"
        return Georeference(None, transform, " has a transform but no reference system", remedy)
    crs = _crs_of(prj)
    if crs is None:
        missing = f" has a transform, and {prj.name}, which cannot be read as a reference system"
        return Georeference(None, transform, missing, f"write its WKT into {prj}")
    return Georeference(crs, transform, missing="")


def has_sidecar(path: Path) -> bool:
    """Return whether a file beside an image may hold its transform: a world file, a MapInfo table or a GDAL sidecar.

    Args:
        path (Path): The image.

    Returns:
        (bool): Whether there is such a file.
    """
    suffix = path.suffix.lower()
    suffixes = {f".{suffix[1:2]}{suffix[-1:]}w", f"{suffix}w", ".wld", ".tab"}
    beside = [path.with_suffix(s) for lower in suffixes for s in (lower, lower.upper())]
    return any(p.is_file() for p in (pam_file(path), *beside))


def pam_file(path: Path) -> Path:
    """Return the place of an image's GDAL sidecar (reference system, transform, nodata, control points).

    Args:
        path (Path): The image.

    Returns:
        (Path): The sidecar, which may not exist.
    """
    return path.with_name(f"{path.name}.aux.xml")


def _without_transform(path: Path, dataset: Any) -> Georeference:
    """Return the georeference of a dataset without a transform, with what it has instead."""
    warped = shlex.quote(str(path.with_name(f"{path.stem}-warped.tif")))
    command = f"{shlex.quote(str(path))} {warped}"
    if dataset.gcps[0]:
        return Georeference(
            missing=" has ground control points, no transform", remedy=f"warp it first: gdalwarp {command}"
        )
    if dataset.rpcs is not None:
        missing = " has rational polynomial coefficients (RPC), no transform"
        return Georeference(missing=missing, remedy=f"warp it first: gdalwarp -rpc {command}")
    if dataset.crs is not None:
        missing = " has a reference system but no transform"
        return Georeference(dataset.crs, None, missing, f"put a world file beside it: {path.with_suffix('.wld')}")
    return Georeference()


def _crs_of(prj: Path) -> Any:
    """Return the reference system of a .prj file (OGC or ESRI WKT), None if it cannot be read."""
    from rasterio.crs import CRS

    try:
        with prj.open("rb") as file:
            text = file.read(MAX_PRJ).decode("utf-8-sig").strip()
        return CRS.from_wkt(text, morph_from_esri_dialect=True)
    except Exception:  # besides CRSError, GDAL's errors come through as classes of their own (rasterio 1.4)
        CRS.from_epsg(4326)  # clears GDAL's error, which the next call would raise (rasterio 1.4.4)
        return None
