"""Options of `explain`."""

from __future__ import annotations

from dataclasses import dataclass

from ds2d2_yolo.config import checks as ok
from ds2d2_yolo.config.options import Options, option

# settings of Ultralytics that pass through
ULTRALYTICS_KEYS = ("split", "imgsz", "conf", "device", "project", "name", "exist_ok", "save_dir", "verbose")
DEFAULT_IMAGES = 4

NOTES = """\
Settings of Ultralytics: split=val (of the images), imgsz (that of the student's training), conf=0.25 (lowest score of
a detection that is drawn), device, project, name=explain, exist_ok and save_dir."""


@dataclass(frozen=True)
class ExplainOptions(Options):
    """Options of `explain` besides Ultralytics' (`ULTRALYTICS_KEYS`), validated when made.

    Attributes:
        teacher (str | None): Trained checkpoint, needed.
        student (str | None): Trained checkpoint of the same task, distilled or not, needed.
        data (str | None): Data-set YAML, needed.
        images (int | str | list[str]): Number of images, or names of images of the split.
        amplifier (str | None): High-frequency amplifier; None takes the one in the folder of the student's run.
        fit_images (int): Number of images to which the adapters are fitted.
        wavelet (str): Discrete wavelet of PyWavelets.
        levels (list[int] | None): Strides of the levels in pixels; None takes all levels of both models.
        teacher_channels (list[int] | None): Channels of the data that the teacher takes; None takes all.
        safe (bool): Whether checkpoints or a data set that could run code are refused.

    Raises:
        BadUseError: If a value is out of its range.
    """

    teacher: str | None = option(None, ok.optional(ok.path), "trained checkpoint, needed")
    student: str | None = option(None, ok.optional(ok.path), "trained checkpoint, distilled or not, needed")
    data: str | None = option(None, ok.optional(ok.path), "data-set YAML, or the name of a packaged one, needed")
    images: int | str | list[str] = option(
        DEFAULT_IMAGES, ok.either(ok.integer(1), ok.listed(ok.text)), "number of images, or names of the split's images"
    )
    amplifier: str | None = option(
        None, ok.optional(ok.path), "high-frequency amplifier, None takes the one in the folder of the student's run"
    )
    fit_images: int = option(32, ok.integer(1), "number of images to which the adapters are fitted")
    wavelet: str = option("haar", ok.wavelet, "discrete wavelet")
    levels: list[int] | None = option(
        None, ok.optional(ok.many(ok.integer(1))), "strides of the levels, None takes all"
    )
    teacher_channels: list[int] | None = option(
        None, ok.optional(ok.many(ok.integer(0))), "the data's channels that the teacher takes, in its order"
    )
    safe: bool = option(False, ok.flag, ok.SAFE)
