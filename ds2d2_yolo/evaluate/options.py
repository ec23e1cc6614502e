"""Options of `val`: edges of the groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ds2d2_yolo.config import checks as ok
from ds2d2_yolo.config.options import Options, option


@dataclass(frozen=True)
class ValOptions(Options):
    """Options of `val`, validated when made.

    Attributes:
        model (str | None): Checkpoint, a release's name or an exported model.
        data (str | None): Data-set YAML; None takes the one of the checkpoint's training.
        size_edges (list[float]): Edges between size groups, as square roots of area in pixels of the original image; an
            object of exactly an edge belongs to the larger group.
        crowd_radius (float): Radius around an object's centre in which the centres of other objects count.
        crowd_unit (str): Unit of the radius: 'size', the square root of the object's area, or 'px', pixels of the
            original image.
        crowd_edges (list[int]): Edges between crowding groups, as numbers of other objects: [1,5] is 0, 1-4, 5+.
        angle_bins (int): Number of directions of the long side, of 180 / `angle_bins` degrees each, centred on 0.
        square (float): Ratio of long to short side below which a box is a square, which has no direction.
        safe (bool): Whether a model or a data set that could run code is refused.

    Raises:
        BadUseError: If a value is out of its range.
    """

    model: str | None = option(None, ok.optional(ok.path), "checkpoint, release or exported model, needed")
    data: str | None = option(None, ok.optional(ok.path), "data-set YAML, None takes that of the checkpoint's training")
    size_edges: tuple[float, ...] = option(
        (16, 32, 96), ok.many(ok.number(0, above=True)), "square roots of area (px of the image) between size groups"
    )
    crowd_radius: float = option(3.0, ok.number(0, above=True), "radius around an object in which other centres count")
    crowd_unit: Literal["size", "px"] = option(
        "size", ok.one_of("size", "px"), "of crowd_radius: the object's size (root of area), or px of the image"
    )
    crowd_edges: tuple[int, ...] = option(
        (1, 5), ok.many(ok.integer(1)), "numbers of others between crowding groups: [1,5] is 0, 1-4, 5+"
    )
    angle_bins: int = option(4, ok.integer(1), "directions of the long side, the first centred on the x axis (obb)")
    square: float = option(1.2, ok.number(1), "ratio of long to short side below which a box has no direction")
    safe: bool = option(False, ok.flag, ok.SAFE)

    def _contradictions(self) -> list[str]:
        """Return the edges that do not rise."""
        return [
            f"{k}={list(v)} must rise"
            for k, v in (("size_edges", self.size_edges), ("crowd_edges", self.crowd_edges))
            if list(v) != sorted(set(v))
        ]
