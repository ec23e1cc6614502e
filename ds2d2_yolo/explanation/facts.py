"""The arrays of an explanation: what the sheets show, as typed values without torch and Ultralytics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Map = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Boxes:
    """Boxes of an image, upright or oriented.

    Attributes:
        corners (NDArray[np.float64]): N x 4 x 2, x and y in pixels of the network's input.
        labels (tuple[str, ...]): N class names.
        scores (NDArray[np.float64]): N scores in [0, 1], 1 for ground truth.
    """

    corners: NDArray[np.float64]
    labels: tuple[str, ...]
    scores: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class BandMaps:
    """One band of one level: energies at each cell, means over channels (and over the three high bands).

    Attributes:
        teacher (Map): Energy of the teacher's features T, h x w.
        student (Map): Energy of the adapted student's features A S, h x w.
        weighted_error (Map): Energy of the difference A S - T times the DISW weight, h x w. Its mean over the cells is
            the level's part of the explicit term.
    """

    teacher: Map
    student: Map
    weighted_error: Map

    @property
    def difference(self) -> Map:
        """(Map): Energy of the adapted student minus energy of the teacher, h x w."""
        difference: Map = self.student - self.teacher
        return difference


@dataclass(frozen=True, eq=False)
class LevelMaps:
    """One level of one image.

    Attributes:
        stride (int): Pixels per feature sample; a cell of the bands is two samples wide.
        origin (tuple[float, float]): Pixel (y, x) of the upper left corner of the bands' grid.
        weight (Map): DISW weight of each cell, h x w, at least 1.
        low (BandMaps): Low band, term exlo.
        high (BandMaps): High bands, term exhi.
    """

    stride: int
    origin: tuple[float, float]
    weight: Map
    low: BandMaps
    high: BandMaps


@dataclass(frozen=True, eq=False)
class AmplifierMaps:
    """An amplifier at work on one level of one image.

    Attributes:
        stride (int): Pixels per cell.
        features (Map): Norm of the difference between the amplifier's inputs from A S and from T, over the mean norm of
            those from T; H x W.
        scores (Map): Largest difference of a class score between the two predictions, H x W, 0 to 1.
        objects (NDArray[np.bool_]): Whether the centre of a cell lies in an object, H x W.
    """

    stride: int
    features: Map
    scores: Map
    objects: NDArray[np.bool_]

    def share_on_objects(self, values: Map) -> float:
        """Return the share of a map's sum that lies on objects.

        Args:
            values (Map): `features` or `scores`.

        Returns:
            (float): 0 to 1, 0 for a map of zeros.
        """
        total = float(values.sum(dtype=np.float64))
        return float(values[self.objects].sum(dtype=np.float64)) / total if total > 0 else 0.0


@dataclass(frozen=True, eq=False)
class ImageExplanation:
    """What a sheet shows of one image.

    Attributes:
        file (str): Name of the image's file.
        pixels (NDArray[np.uint8]): The network's input, H x W x 3, RGB.
        area (tuple[float, float, float, float]): Left, top, right and bottom of the image in the input, without the
            padding of the letterbox, in pixels.
        truth (Boxes): Labelled objects.
        teacher (Boxes): The teacher's detections.
        student (Boxes): The student's detections.
        levels (tuple[LevelMaps, ...]): Levels, finest first.
        amplifiers (Mapping[str, AmplifierMaps]): By term: 'imfu', and 'imhi' with a high-frequency amplifier. The level
            is the one with the largest part of the term.
        values (Mapping[str, tuple[float, ...]]): Parts of each term by level; their sum is the term at gain 1.
    """

    file: str
    pixels: NDArray[np.uint8]
    area: tuple[float, float, float, float]
    truth: Boxes
    teacher: Boxes
    student: Boxes
    levels: tuple[LevelMaps, ...]
    amplifiers: Mapping[str, AmplifierMaps]
    values: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True, eq=False)
class Explanation:
    """What the sheets of one pair of models show.

    Attributes:
        teacher (str): The teacher's file.
        student (str): The student's file.
        data (str): The data set.
        split (str): Split of the images.
        imgsz (int): Side of the network's input in pixels.
        conf (float): Lowest score of a detection.
        wavelet (str): Wavelet of the bands.
        classes (tuple[str, ...]): Names of all classes that the boxes have.
        shared (str): How many of the student's classes the teacher has; the others are not compared in the implicit
            terms.
        fitted_to (str): To what the adapters are fitted, such as '32 images of split=train'.
        r2 (tuple[float, ...]): R^2 of A S for T over all shown images by level, at most 1.
        no_amplifier (str): Why there is no 'imhi', empty if there is one.
        images (tuple[ImageExplanation, ...]): The images.
    """

    teacher: str
    student: str
    data: str
    split: str
    imgsz: int
    conf: float
    wavelet: str
    classes: tuple[str, ...]
    shared: str
    fitted_to: str
    r2: tuple[float, ...]
    no_amplifier: str
    images: tuple[ImageExplanation, ...]


@dataclass(frozen=True)
class ExplanationFiles:
    """The files of an explanation.

    Attributes:
        page (Path): HTML page with all sheets.
        sheets (tuple[Path, ...]): A PNG file for each image.
        banner (Path): PNG file with four panels of the first image side by side.
    """

    page: Path
    sheets: tuple[Path, ...]
    banner: Path

    def __str__(self) -> str:
        """Return one line about the files."""
        count = len(self.sheets)
        return f"{count} sheet{'s' * (count != 1)} on one page: {self.page}"
