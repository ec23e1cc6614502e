"""The options of `predict`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ds2d2_yolo.config.checks import SAFE, either, flag, integer, listed, many, number, one_of, optional, path, words
from ds2d2_yolo.config.options import Options, option
from ds2d2_yolo.utils.stretch import PERCENTILES

FORMATS = ("geojson", "csv", "dota", "task1", "task2", "picture")


@dataclass(frozen=True)
class PredictOptions(Options):
    """Options of `predict`. Without `slice` it predicts as `yolo predict` does, and writes `formats` if they are given.

    Attributes:
        model (str | None): Trained detect or OBB model, as a checkpoint or in an exported format.
        source (str | None): One image, a folder, a glob pattern, or a text file with a path per line.
        slice (int | None): Side of a tile in pixels of the scene.
        overlap (float): Share of a tile that its neighbour repeats.
        bands (list[int] | None): Bands that the model sees, counted from 1.
        stretch (str | list[float]): Conversion of other than 8-bit data to 8 bits.
        memory (float): Bound of the pixels held in memory, in GiB.
        seam_iou (float): IoU from which complete boxes of two tiles are one object.
        formats (list[str] | str | None): Files to write.
        safe (bool): Whether a model that could run code is refused.
    """

    model: str | None = option(None, optional(path), "trained detect or OBB model: best.pt or an exported file")
    source: str | None = option(None, optional(path), "an image, a folder, a glob, or a .txt with a path per line")
    slice: int | None = option(
        None, optional(integer(32)), "side of a tile in pixels of the scene, and imgsz too unless imgsz= says otherwise"
    )
    overlap: float = option(
        0.2, number(0, 0.9), "share of a tile that its neighbour repeats; objects should fit into it"
    )
    bands: list[int] | None = option(
        None,
        optional(many(integer(1))),
        "bands that the model sees, from 1, red first; without it R,G,B or the first ones",
    )
    stretch: str | list[float] = option(
        "auto", either(one_of("auto", "none"), many(number(0, 100), 2)),
        "percentiles that become 0 and 255; auto: 2 and 98, only for other than 8-bit data; none: by the type's range",
    )  # fmt: skip
    memory: float = option(
        1.0,
        number(0, above=True),
        "GiB of pixels in memory; PNG, JPEG and BMP must fit whole, TIFF and JP2 need not",
    )
    seam_iou: float = option(0.3, number(0, 1, above=True), "IoU from which complete boxes of two tiles are one object")
    formats: list[str] | str | None = option(
        None,
        optional(listed(one_of(*FORMATS))),
        "files to write, with slice geojson,csv by default; dota: task1 (OBB models) and task2",
    )
    safe: bool = option(False, flag, SAFE)

    def _contradictions(self) -> list[str]:
        """Return contradictions between options."""
        wrong = []
        if isinstance(self.stretch, (list, tuple)) and (len(self.stretch) != 2 or self.stretch[0] >= self.stretch[1]):
            wrong.append(f"stretch={self.stretch} must be two percentiles, the lower first, such as [2,98]")
        return wrong

    @property
    def shared(self) -> int:
        """Pixels that neighbouring tiles share at least."""
        return round(self.overlap * (self.slice or 0))

    def output_formats(self) -> tuple[str, ...]:
        """Return the formats to write, each once."""
        if self.formats is None:
            return ("geojson", "csv") if self.slice else ()
        return tuple(dict.fromkeys(words(self.formats)))

    def percentiles(self, eight_bit: bool) -> tuple[float, float] | None:
        """Return the percentiles to stretch between, None for none.

        Args:
            eight_bit (bool): Whether the data are 8-bit.

        Returns:
            (tuple[float, float] | None): Lower and upper percentile, in [0, 100].
        """
        if isinstance(self.stretch, str):
            return None if self.stretch == "none" or eight_bit else PERCENTILES
        return float(self.stretch[0]), float(self.stretch[1])

    def deciding(self) -> dict[str, Any]:
        """Return the options that determine the detections in tiles; a run continues only if they are equal."""
        keys = ("slice", "overlap", "bands", "stretch")
        return {k: v for k, v in self.as_dict().items() if k in keys}
