"""The scene under construction: its scale, sun, textures and shadows, what stands where, and the labels so far."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import cv2
import numpy as np

from ds2d2_yolo.scenes.drawing import palette
from ds2d2_yolo.scenes.drawing.canvas import SCALE, Canvas, Points, fixed
from ds2d2_yolo.scenes.drawing.geometry import Pose
from ds2d2_yolo.scenes.drawing.noise import U8, blend_fields, fractal
from ds2d2_yolo.scenes.drawing.palette import Biome, Colour, ramp

NAMES = ("car", "truck", "ship", "aircraft", "storage-tank", "sports-court")
CAR, TRUCK, SHIP, AIRCRAFT, TANK, COURT = range(6)
SMALLEST, LARGEST = 6.0, 200.0

OBJECT, PAVED, BUILT, WET, TREE = 1, 2, 4, 8, 16

Label = tuple[int, Points]
T = TypeVar("T")


class World:
    """A scene under construction.

    Ground is painted at once. Objects that lie on it are queued in `low`, what towers over them in `high`; `finish`
    paints the shadows of the low ones, the low ones, the shadows of the high ones on all that, then the high ones.

    Attributes:
        rng (np.random.Generator): The scene's only source of chance.
        gsd (float): Ground sample distance in metres per pixel.
        theta (float): Rotation of the site in the picture in radians.
        lean (np.ndarray): How far one metre of height leans over in pixels: no camera looks straight down everywhere.
        shadow (np.ndarray): Shadow of one metre of height in pixels.
        sun (np.ndarray): Unit vector in the picture that points to the sun.
        biome (Biome): Colours of the region.
        labels (list): (class, corners in pixels) of every labelled object.
    """

    def __init__(self, rng: np.random.Generator, size: int, gsd: float, theta: float | None = None) -> None:
        """Choose rotation, sun and biome."""
        self.rng = rng
        self.size = size
        self.gsd = gsd
        self.theta = self.uniform(0, 2 * math.pi) if theta is None else theta
        azimuth, slope = self.uniform(0, 2 * math.pi), self.uniform(0.35, 1.25)
        self.sun: Points = -np.array([math.cos(azimuth), math.sin(azimuth)])
        self.shadow: Points = -self.sun * slope / gsd
        away, tilt = self.uniform(0, 2 * math.pi), self.uniform(0, 0.22)
        self.lean: Points = np.array([math.cos(away), math.sin(away)]) * tilt / gsd
        self.biome: Biome = self.pick(palette.BIOMES)
        self.canvas = Canvas(size)
        self.labels: list[Label] = []
        self.low: list[Callable[[], None]] = []
        self.high: list[Callable[[], None]] = []
        self.shadow_low: U8 = np.zeros((self.canvas.side, self.canvas.side), np.uint8)
        self.shadow_high: U8 = np.zeros_like(self.shadow_low)
        self.taken: U8 = np.zeros((size, size), np.uint8)
        self.rough = fractal(rng, size, 300 / max(gsd, 0.3) ** 0.5, 0.62)
        self.fine = fractal(rng, size, 12, 0.85)
        self.rough_large, self.fine_large = self.enlarge(self.rough), self.enlarge(self.fine)
        self._textures: dict[str, U8] = {}

    # Chance.

    def uniform(self, low: float, high: float) -> float:
        """Return a uniform number between two bounds, in either order."""
        return low + (high - low) * float(self.rng.random())

    def chance(self, probability: float) -> bool:
        """Return True with the given probability."""
        return bool(self.rng.random() < probability)

    def pick(self, options: Sequence[T]) -> T:
        """Return one of the options, all alike."""
        return options[int(self.rng.integers(len(options)))]

    def weighted(self, options: Sequence[tuple[T, float]]) -> T:
        """Return one of the (option, weight) pairs' options."""
        at = float(self.rng.random()) * sum(weight for _, weight in options)
        for option, weight in options:
            at -= weight
            if at < 0:
                return option
        return options[-1][0]

    # Ground.

    def texture(self, name: str, stops: Sequence[Colour] | None = None, grain: float = 0.35) -> U8:
        """Return the ground texture of that name, made of colour stops on the first call."""
        if name not in self._textures:
            if stops is None:
                raise ValueError(f"texture '{name}' has not been made yet: give its colour stops")
            field = blend_fields(self.rough, self.fine, grain)
            field = np.ascontiguousarray(np.rot90(field, len(self._textures) % 4))  # the same noise, turned
            self._textures[name] = self.enlarge(cv2.LUT(cv2.merge([field] * 3), ramp(stops)[None]))
        return self._textures[name]

    def enlarge(self, picture: U8) -> U8:
        """Return a picture or field of the final size at the supersampled size."""
        side = self.canvas.side
        large: U8 = cv2.resize(picture, (side, side), interpolation=cv2.INTER_LINEAR_EXACT)
        return large

    def prepare(self) -> None:
        """Make the textures that every scene has and cover the ground with grass that turns to soil in places."""
        asphalt = self.pick(palette.ASPHALTS)
        self.texture("asphalt", asphalt, 0.5)
        self.texture("worn", [palette.mix(c, palette.rgb(128, 124, 118), 0.3) for c in asphalt], 0.5)
        self.texture("concrete", palette.CONCRETE, 0.45)
        self.texture("gravel", palette.GRAVEL, 0.6)
        self.texture("lawn", [palette.mix(c, self.biome.grass[-1], 0.4) for c in self.biome.grass], 0.4)
        soil = self.texture("soil", self.biome.soil, 0.4)
        self.canvas.image[:] = self.texture("grass", self.biome.grass, 0.4)
        bare = (fractal(self.rng, self.size, 200, 0.7) > 128 + self.uniform(40, 110)).astype(np.uint8) * 255
        cv2.copyTo(soil, cv2.GaussianBlur(self.enlarge(bare), (5, 5), 0), self.canvas.image)

    # What stands where.

    def inside(self, points: Points, margin: float = 0.0) -> bool:
        """Tell whether all points (N, 2) in pixels lie in the picture, `margin` pixels from its border."""
        return bool(points.min() >= margin and points.max() <= self.size - margin)

    def near(self, point: Points, margin: float) -> bool:
        """Tell whether a point lies in the picture grown by `margin` pixels."""
        return bool(point.min() >= -margin and point.max() <= self.size + margin)

    def _window(self, points: Points) -> tuple[U8, U8] | None:
        """Return the polygon's window of the map of taken ground, and the polygon's mask there."""
        low = np.clip(np.floor(points.min(axis=0)).astype(int), 0, self.size)
        high = np.clip(np.ceil(points.max(axis=0)).astype(int) + 1, 0, self.size)
        if (high <= low).any():
            return None
        mask: U8 = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
        cv2.fillConvexPoly(mask, np.rint((points - low) * 16 - 8).astype(np.int32), (255,), cv2.LINE_8, 4)
        return self.taken[low[1] : high[1], low[0] : high[0]], mask

    def is_free(self, points: Points, kinds: int) -> bool:
        """Tell whether a convex polygon in pixels meets none of the kinds of taken ground."""
        window = self._window(points)
        return window is None or not bool((window[0] & kinds & window[1]).any())

    def take(self, points: Points, kind: int) -> None:
        """Mark a convex polygon in pixels as taken by a kind."""
        window = self._window(points)
        if window is not None:
            window[0][:] |= window[1] & kind

    def add(self, category: int, pose: Pose, avoid: int = OBJECT | BUILT | TREE) -> bool:
        """Label an object and take its ground; refuse one that is cut by the border, covered, too small or too big."""
        corners = pose.corners
        size = math.sqrt(pose.length * pose.width)
        if not (SMALLEST <= size <= LARGEST and self.inside(corners) and self.is_free(corners, avoid)):
            return False
        self.take(corners, OBJECT)
        self.labels.append((category, corners))
        return True

    # Shadows and the finish.

    def cast(self, points: Points, height: float, high: bool = False) -> None:
        """Cast the shadow of a convex prism that stands on a polygon in pixels, its height in metres."""
        both = np.concatenate([points, points + self.shadow * height])
        hull = cv2.convexHull(fixed(both))
        cv2.fillConvexPoly(self.shadow_high if high else self.shadow_low, hull, (255,), cv2.LINE_8, 4)

    def cast_round(self, centre: Points, radius: float, height: float, high: bool = False) -> None:
        """Cast the shadow of an upright cylinder, its radius in pixels and height in metres."""
        a, b = fixed(centre).tolist(), fixed(centre + self.shadow * height).tolist()
        thick = max(1, round(radius * 2 * SCALE))
        cv2.line(self.shadow_high if high else self.shadow_low, a, b, (255,), thick, cv2.LINE_8, 4)

    def _darken(self, mask: U8) -> None:
        """Darken the picture under a mask of shadows; sky light keeps them bluish."""
        if not mask.any():
            return
        soft = cv2.GaussianBlur(mask, (3, 3), 0)
        keep = ramp_down((0.50, 0.43, 0.40))
        factor = cv2.LUT(cv2.merge([soft] * 3), keep[None])
        np.copyto(self.canvas.image, ((self.canvas.image.astype(np.uint16) * factor) >> 8).astype(np.uint8))

    def finish(self) -> None:
        """Paint everything queued, from the ground up."""
        self._darken(self.shadow_low)
        for draw in self.low:
            draw()
        self._darken(self.shadow_high)
        for draw in self.high:
            draw()


def ramp_down(keep: tuple[float, float, float]) -> palette.Ramp:
    """Return a table (256, 3) from shadow strength to the share of light that remains (255 = all)."""
    index = np.arange(256)[:, None]
    table: palette.Ramp = np.rint(255 - index * (1 - np.array(keep))).astype(np.uint8)
    return table
