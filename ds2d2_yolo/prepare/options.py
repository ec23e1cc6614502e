"""Options of `ds2d2-yolo data prepare`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ds2d2_yolo.config import checks as ok
from ds2d2_yolo.config.options import Options, option

SPLITS = ("train", "val", "test")
DOTA_ONLY = ("version", "crop_size", "gap", "rates", "iof", "background", "difficult")


def _version_error(value: Any) -> str | None:
    """Return an error unless the value is a version of DOTA."""
    return None if not isinstance(value, bool) and str(value) in ("1", "1.0", "1.5") else "must be 1.0 or 1.5"


@dataclass(frozen=True)
class PrepareOptions(Options):
    """Options of a preparation, validated when made.

    Attributes:
        source (str | None): Folder of the published data set, unpacked.
        out (str | None): Output folder; None is the folder of the packaged data YAML, under Ultralytics' datasets_dir.
        splits (list[str] | str | None): Of 'train', 'val' and 'test'; None takes all splits of the source.
        overwrite (bool): Whether other content of `out` is replaced: its images/, labels/ and lists. The unfinished
            output of the same command is always continued.
        resume (bool): Without effect, since the same command always continues. Accepted for consistency.
        workers (int): Images at a time, 1 or more. Each takes 3 bytes a pixel of its image, and while OpenCV 5 decodes
            a PNG 6: 2.4 GB for one of 20,000 px a side. Images of other than 8 bits take their size on top.
        images (str): 'link' hard-links images that need no tiling, and copies if the file system has no hard links;
            'copy' copies. Links share their bytes with the source: an edit in place changes both. Images of other than
            8 bits are stretched to 8 bits and written as PNG.
        version (float): Labels of DOTA, 1.0 or 1.5.
        crop_size (int): Side of DOTA's tiles in pixels at rate 1.
        gap (int): Overlap of neighbouring tiles in pixels at rate 1, less than `crop_size`.
        rates (float | list[float]): Scales of DOTA's tiles: at rate r a tile covers `crop_size` / r pixels. The usual
            multi-scale set is [0.5,1.0,1.5].
        iof (float): Share of an object's area that must lie in a tile to label it there, above 0 to 1.
        background (bool): Whether tiles without objects are written.
        difficult (str): 'keep' or 'drop' DOTA's objects that are marked difficult. 'keep' is the default, as in
            Ultralytics' conversion and mmrotate's training.
        verbose (bool): Whether the progress is shown.

    Raises:
        BadUseError: If a value is out of its range, or two contradict each other.

    Examples:
        >>> PrepareOptions(source="DOTA", rates=[0.5, 1.0, 1.5]).scales
        (0.5, 1.0, 1.5)
    """

    source: str | None = option(None, ok.optional(ok.path), "folder of the published data set, needed")
    out: str | None = option(None, ok.optional(ok.path), "output folder; None is the folder of the packaged YAML")
    splits: list[str] | str | None = option(
        None, ok.optional(ok.listed(ok.one_of(*SPLITS))), "such as [train,val]; None takes all splits of the source"
    )
    overwrite: bool = option(False, ok.flag, "replace other content of out")
    resume: bool = option(False, ok.flag, "without effect: the same command always continues")
    workers: int = option(1, ok.integer(1), "images at a time")
    images: Literal["link", "copy"] = option(
        "link", ok.one_of("link", "copy"), "images without tiling: hard links where possible, or copies"
    )
    version: float = option(1.0, ok.Check("1.0 | 1.5", _version_error, ("1.0", "1.5")), "dota: which labels")
    crop_size: int = option(1024, ok.integer(64), "dota: side of a tile in pixels at rate 1")
    gap: int = option(200, ok.integer(0), "dota: overlap of neighbouring tiles in pixels at rate 1")
    rates: float | list[float] = option(
        1.0, ok.either(ok.number(0.01, 100), ok.many(ok.number(0.01, 100))), "dota: scales, multi-scale [0.5,1.0,1.5]"
    )
    iof: float = option(0.7, ok.number(0, 1, above=True), "dota: share of an object's area that must lie in a tile")
    background: bool = option(True, ok.flag, "dota: write tiles without objects")
    difficult: Literal["keep", "drop"] = option(
        "keep", ok.one_of("keep", "drop"), "dota: objects that are marked difficult"
    )
    verbose: bool = option(True, ok.flag, ok.VERBOSE)

    @property
    def chosen(self) -> list[str] | None:
        """(list[str] | None): The splits as a list, None for all splits of the source."""
        return None if self.splits is None else list(ok.words(self.splits))

    @property
    def scales(self) -> tuple[float, ...]:
        """(tuple[float, ...]): The rates as a tuple."""
        return tuple(map(float, self.rates)) if isinstance(self.rates, (list, tuple)) else (float(self.rates),)

    @property
    def windows(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Sides and overlaps of the tiles at each rate in pixels, rounded down as in Ultralytics' `split_trainval`."""
        # the quotient of a decimal rate may be slightly less than the exact integer: int() would lose a pixel
        sides, gaps = (tuple(int(x / r + 1e-9) for r in self.scales) for x in (self.crop_size, self.gap))
        return sides, gaps

    def _contradictions(self) -> list[str]:
        """Return the contradictions between tile options."""
        errors = []
        if self.gap >= self.crop_size:
            errors.append(f"gap={self.gap} must be under crop_size={self.crop_size}")
        elif min(self.windows[0]) < 32:
            errors.append(f"rates={self.rates} make tiles of {min(self.windows[0])} px: at least 32 are needed")
        elif any(gap >= side for side, gap in zip(*self.windows, strict=True)):
            errors.append(f"gap={self.gap} leaves no step between tiles at rates={self.rates}")
        if len(set(self.windows[0])) < len(self.scales):
            errors.append(f"rates={self.rates} name the same tiles twice")
        return errors
