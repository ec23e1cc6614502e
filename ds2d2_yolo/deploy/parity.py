"""The parity report of an exported file and its checkpoint: rates, differences, tolerances and verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ds2d2_yolo.deploy.matching import ImageComparison, Margins

LISTED = 50  # one-sided detections that the JSON file lists


@dataclass(frozen=True)
class Tolerance:
    """Allowed differences of a pair.

    Attributes:
        iou (float): 1 - IoU.
        score (float): Difference of the scores.
        angle (float): Difference of the angles in radians.
        missing (float): Share of one-sided detections among pairs and one-sided ones.
        quantile (float): Quantile of the sorted differences that is judged: 1 is the largest, 0.9 the 90th percentile.
    """

    iou: float
    score: float
    angle: float
    missing: float
    quantile: float

    def changed(self, **values: float | None) -> Tolerance:
        """Return the tolerance with the values that are not None replaced."""
        return replace(self, **{k: v for k, v in values.items() if v is not None})

    def margins(self, nms_iou: float, max_det: int) -> Margins:
        """Return the differences that rounding explains, for the matching.

        Args:
            nms_iou (float): IoU above which NMS drops the lower score.
            max_det (int): Largest number of detections of an image.

        Returns:
            (Margins): Margins of IoU and score, and the thresholds of NMS.
        """
        return Margins(iou=1 - self.iou, score=self.score, nms_iou=nms_iou, max_det=max_det)


# FP32 sums in another order; FP16 has 11 bits; INT8 is another model that has to stay close to the first
TOLERANCES = {
    "FP32": Tolerance(iou=0.01, score=0.002, angle=0.01, missing=0.0, quantile=1.0),
    "FP16": Tolerance(iou=0.1, score=0.05, angle=0.1, missing=0.02, quantile=0.99),
    "INT8": Tolerance(iou=0.3, score=0.15, angle=0.2, missing=0.1, quantile=0.9),
}


@dataclass(frozen=True)
class DifferenceQuantiles:
    """Median, 90th and 99th percentile and maximum of a difference over all pairs."""

    median: float
    p90: float
    p99: float
    largest: float

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> DifferenceQuantiles:
        """Return the quantiles of values; a NaN among them makes all quantiles NaN."""
        # 'higher' takes one of the values and never interpolates
        return cls(*(float(np.quantile(values, q, method="higher")) for q in (0.5, 0.9, 0.99, 1.0)))

    def judged(self, quantile: float) -> float:
        """Return the value of a quantile, 0.9, 0.99 or 1."""
        return {0.9: self.p90, 0.99: self.p99, 1.0: self.largest}[quantile]


@dataclass(frozen=True)
class ParityReport:
    """The result of comparing an exported file with PyTorch.

    Attributes:
        precision (str): Precision that the tolerances belong to: FP32, FP16 or INT8.
        tolerance (Tolerance): The tolerances.
        conf (float): Score from which a detection counted.
        images (int): Number of comparisons, images times input shapes.
        source (str): Origin of the images.
        setting (str): Format, device, input shapes, batch.
        matched (int): Pairs.
        only_torch (int): Detections that only PyTorch has.
        only_file (int): Detections that only the file has.
        ties (int): One-sided detections that near ties explain.
        differences (dict[str, DifferenceQuantiles]): Of '1 - IoU', 'score' and, for oriented boxes, 'angle'; empty
            without pairs.
        listed (list[dict[str, Any]]): The first `LISTED` one-sided detections.
    """

    precision: str
    tolerance: Tolerance
    conf: float
    images: int
    source: str
    setting: str
    matched: int
    only_torch: int
    only_file: int
    ties: int
    differences: dict[str, DifferenceQuantiles]
    listed: list[dict[str, Any]]

    @classmethod
    def of(cls, images: Sequence[ImageComparison], names: Sequence[str], rotated: bool, **about: Any) -> ParityReport:
        """Combine the comparisons of single images.

        Args:
            images (Sequence[ImageComparison]): One for each image and input shape.
            names (Sequence[str]): Name of each, for the list of one-sided detections.
            rotated (bool): Whether boxes are oriented.
            **about (Any): The other attributes.

        Returns:
            (ParityReport): The report.
        """
        pairs = np.array([p for c in images for p in c.pairs], dtype=np.float64).reshape(-1, 3)
        kinds = ("1 - IoU", "score", "angle")[: 3 if rotated else 2]
        one_sided = [
            {"image": name, "only": side, "xywhr_score_class": row}
            for comparison, name in zip(images, names, strict=True)
            for side, only in (("PyTorch", comparison.only_torch), ("file", comparison.only_file))
            for row in only.rows.tolist()
        ]
        return cls(
            images=len(images),
            matched=len(pairs),
            only_torch=sum(len(c.only_torch) for c in images),
            only_file=sum(len(c.only_file) for c in images),
            ties=sum(c.ties for c in images),
            differences={k: DifferenceQuantiles.of(pairs[:, i]) for i, k in enumerate(kinds)} if len(pairs) else {},
            listed=one_sided[:LISTED],
            **about,
        )

    @property
    def missing(self) -> float:
        """(float): Share of one-sided detections among pairs and one-sided ones."""
        one_sided = self.only_torch + self.only_file
        return one_sided / max(self.matched + one_sided, 1)

    @property
    def judged(self) -> str:
        """(str): The quantile of the differences that is judged, in words."""
        return {0.9: "90th percentile", 0.99: "99th percentile", 1.0: "largest"}[self.tolerance.quantile]

    @property
    def wrong(self) -> list[str]:
        """(list[str]): Quantities out of their tolerance, in words; empty if the check holds."""
        if self.inconclusive:
            return [
                f"no detections of score {self.conf:g} and more to compare: name images with objects by check_images=, "
                f"or lower check_conf="
            ]
        tolerance = self.tolerance
        limits = {"1 - IoU": tolerance.iou, "score": tolerance.score, "angle": tolerance.angle}
        wrong = [
            f"{self.judged} of {kind} {value:.3g} is over {limits[kind]:g}"
            for kind, quantiles in self.differences.items()
            if not (value := quantiles.judged(tolerance.quantile)) <= limits[kind]
        ]
        if self.missing > tolerance.missing:
            wrong.insert(
                0,
                f"{self.only_torch} detections only in PyTorch, {self.only_file} only in the file, "
                f"{self.matched} matched: {self.missing:.1%} one-sided, over {tolerance.missing:.1%}",
            )
        return wrong

    @property
    def inconclusive(self) -> bool:
        """(bool): Whether neither model detects anything, so that nothing differs and nothing is proved."""
        return not self.matched + self.only_torch + self.only_file

    @property
    def holds(self) -> bool:
        """(bool): Whether everything is within its tolerance."""
        return not self.wrong

    @property
    def failed(self) -> bool:
        """(bool): Whether something is out of its tolerance."""
        return not self.holds and not self.inconclusive

    @property
    def verdict(self) -> str:
        """(str): The verdict as a line of the report."""
        if self.holds:
            return "the check holds"
        return f"{'THE CHECK FAILED' if self.failed else 'the check is inconclusive'}: {'; '.join(self.wrong)}"

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain values, with the verdict."""
        verdict = {"holds": self.holds, "inconclusive": self.inconclusive, "wrong": self.wrong}
        return {**verdict, **asdict(self)}

    def __str__(self) -> str:
        """Return the tables."""
        total = max(self.matched + self.only_torch + self.only_file, 1)
        counts = {"matched": self.matched, "only PyTorch": self.only_torch, "only the file": self.only_file}
        limits = (self.tolerance.iou, self.tolerance.score, self.tolerance.angle)
        rows = [
            f"{self.setting}; {self.precision} tolerances, on the {self.judged}",
            f"{self.images} comparisons on {self.source}; detections of score {self.conf:g} and more",
            "",
            f"  {'detections':14}{'number':>8}{'share':>9}",
            *(f"  {name:14}{n:8d}{n / total:9.2%}" for name, n in counts.items()),
            f"  {'near ties':14}{self.ties:8d}{'apart':>9}",
            "",
            f"  {'difference':14}{'median':>10}{'p90':>10}{'p99':>10}{'largest':>10}{'tolerance':>11}",
            *(
                _line(kind, quantiles, limit)
                for (kind, quantiles), limit in zip(self.differences.items(), limits, strict=False)
            ),
            "",
            self.verdict,
        ]
        return "\n".join(rows)


def _line(kind: str, quantiles: DifferenceQuantiles, limit: float) -> str:
    """Return a difference's line of the table."""
    name = kind + (" (rad)" if kind == "angle" else "")
    numbers = "".join(f"{n:10.2g}" for n in (quantiles.median, quantiles.p90, quantiles.p99, quantiles.largest))
    return f"  {name:14}{numbers}{limit:11g}"
