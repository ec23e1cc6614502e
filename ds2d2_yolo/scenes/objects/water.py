"""Water surface, shores, foam and wakes."""

from __future__ import annotations

import math

import cv2
import numpy as np

from ds2d2_yolo.scenes.drawing import palette
from ds2d2_yolo.scenes.drawing.canvas import SHIFT, Points, fill_convex, fixed
from ds2d2_yolo.scenes.drawing.geometry import Pose, box
from ds2d2_yolo.scenes.drawing.noise import U8, blend_fields, fractal, ripple
from ds2d2_yolo.scenes.drawing.palette import mix, ramp, rgb
from ds2d2_yolo.scenes.site import Site
from ds2d2_yolo.scenes.world import WET, World

FOAM = rgb(222, 230, 230)


class Sea:
    """The water of a scene: its colour, its waves, and the foam gathered on it until it is painted.

    Attributes:
        foam (np.ndarray): Foam in 0..255 on the supersampled picture.
    """

    def __init__(self, world: World) -> None:
        """Choose colour, wind and waves."""
        self.world = world
        choice = int(world.rng.integers(len(palette.WATERS)))
        deep, self.shallow = list(palette.WATERS[choice]), palette.SHALLOWS[choice]
        warp = fractal(world.rng, world.size, 60, 0.6)
        metres = (3.5, 6.0, 10.0, 17.0)
        waves = [max(3.0, m * world.uniform(0.7, 1.3) / world.gsd) for m in metres]
        swell = ripple(world.rng, warp, waves, world.uniform(0, 2 * math.pi), 0.5)
        field = blend_fields(fractal(world.rng, world.size, 400, 0.5), swell, world.uniform(0.12, 0.3))
        field = blend_fields(field, fractal(world.rng, world.size, 8, 0.9), 0.16)
        self.surface = world.enlarge(cv2.LUT(cv2.merge([field] * 3), ramp(deep)[None]))
        self.rough = fractal(world.rng, world.size, 10, 0.85)
        self.foam: U8 = np.zeros((world.canvas.side, world.canvas.side), np.uint8)
        self.water: U8 = np.zeros((world.canvas.side, world.canvas.side), np.uint8)

    def flood(self, rings: list[Points]) -> None:
        """Turn polygons into water."""
        for ring in rings:
            cv2.fillPoly(self.water, [fixed(ring)], (255,), cv2.LINE_8, SHIFT)

    def settle(self, shallow: float, surf: float) -> None:
        """Paint the water where `flood` put it, paler near the shore, and mark it as wet.

        Args:
            shallow (float): Width of the shallows in metres; 0 for a quay.
            surf (float): Strength of the surf along the shore in 0..1.
        """
        world, canvas = self.world, self.world.canvas
        cv2.copyTo(self.surface, self.water, canvas.image)
        small = cv2.resize(self.water, (world.size, world.size), interpolation=cv2.INTER_AREA)
        world.taken[small > 127] |= WET
        if shallow:
            for reach, share in ((1.0, 0.45), (0.35, 0.4)):
                self._tint(small, shallow * reach / world.gsd, share)
        if surf:
            edge = cv2.GaussianBlur(cv2.bitwise_not(small), (0, 0), max(1.0, 3.0 / world.gsd))
            band = (cv2.bitwise_and(edge, small) > 70).astype(np.uint8) * round(255 * surf)
            self.foam = cv2.max(self.foam, world.enlarge(cv2.GaussianBlur(band, (5, 5), 0)))

    def _tint(self, small: U8, reach: float, share: float) -> None:
        """Blend the colour of shallow water within a distance of the shore in pixels."""
        world = self.world
        tiny = cv2.resize(small, (world.size // 4, world.size // 4), interpolation=cv2.INTER_AREA)
        land = cv2.GaussianBlur(cv2.bitwise_not(tiny), (0, 0), max(0.8, reach / 4))
        weight = world.enlarge(cv2.resize(land, (world.size, world.size), interpolation=cv2.INTER_LINEAR_EXACT))
        weight16 = np.minimum(weight.astype(np.uint16) * 2, 255) * round(share * 256) >> 8
        weight16[self.water == 0] = 0
        world.canvas.blend(slice(None), slice(None), weight16, self.shallow)

    def whitecaps(self, amount: float) -> None:
        """Add white horses where rough noise peaks: small bright flecks as large as boats."""
        world = self.world
        peak = blend_fields(self.rough, world.fine, 0.4)
        caps = (peak > 240 - amount * 36).astype(np.uint8) * 170
        self.foam = cv2.max(self.foam, world.enlarge(caps))

    def wake(self, pose: Pose, speed: float) -> None:
        """Lay the wake of a vessel under way: churned water astern, bow wave and the two arms.

        Args:
            pose (Pose): The vessel.
            speed (float): 0..1; how long and how white.
        """
        length, width = pose.length, pose.width
        reach = length * (1.2 + 3.5 * speed)
        ahead, aside = pose.along / length, pose.across / width
        stern = pose.centre - pose.along * 0.46
        pieces = 22
        drift = self.world.uniform(-0.12, 0.12) * reach
        for k in reversed(range(pieces)):
            a, b = k / pieces, (k + 1) / pieces
            wide = [width * (0.34 + 0.75 * t**0.6 * (0.5 + speed)) for t in (a, b)]
            centre = [stern - ahead * reach * t + aside * drift * t * t for t in (a, b)]
            quad = np.stack([centre[0] + aside * wide[0] / 2, centre[1] + aside * wide[1] / 2])
            quad = np.concatenate([quad, np.stack([centre[1] - aside * wide[1] / 2, centre[0] - aside * wide[0] / 2])])
            fill_convex(self.foam, quad, round((205 * (1 - a) ** 1.3 + 12) * (0.55 + 0.45 * speed)))
        bow = pose.centre + pose.along * 0.46
        for side in (-1.0, 1.0):
            self._arm(bow, ahead, aside * side, length, width, speed)

    def _arm(self, bow: Points, ahead: Points, aside: Points, length: float, width: float, speed: float) -> None:
        reach, pieces = length * (1.0 + 2.0 * speed), 16
        for k in range(pieces):
            a, b = k / pieces, (k + 1) / pieces
            along = [bow - ahead * reach * t + aside * (width * 0.3 + reach * 0.30 * t) for t in (a, b)]
            thick = [max(0.8, width * (0.14 + 0.42 * t)) for t in (a, b)]
            quad = np.stack([along[0], along[1], along[1] - aside * thick[1], along[0] - aside * thick[0]])
            fill_convex(self.foam, quad, round(150 * (1 - a) ** 1.9 * (0.35 + 0.65 * speed)))

    def paint_foam(self) -> None:
        """Blend the foam gathered so far over the water, torn by noise."""
        world = self.world
        soft = cv2.GaussianBlur(self.foam, (0, 0), max(0.9, 0.7 / world.gsd))
        torn = np.clip((world.enlarge(self.rough).astype(np.int16) - 20) * 3 // 2, 40, 255).astype(np.uint16)
        weight = (soft.astype(np.uint16) * torn) >> 8
        weight[self.water == 0] = 0
        world.canvas.blend(slice(None), slice(None), weight, FOAM)


def shoreline(site: Site, start: tuple[float, float], end: tuple[float, float], rough: float) -> Points:
    """Return a wandering line between two points of a site in metres (midpoint displacement)."""
    world = site.world
    points = np.array([start, end], np.float64)
    spread = rough * math.hypot(end[0] - start[0], end[1] - start[1]) * 0.22
    for _ in range(7):
        middle = (points[:-1] + points[1:]) / 2 + world.rng.uniform(-spread, spread, (len(points) - 1, 2))
        both = np.empty((len(points) + len(middle), 2))
        both[0::2], both[1::2] = points, middle
        points, spread = both, spread * 0.52
    return points


def rocks(site: Site, sea: Sea, count: int) -> None:
    """Scatter rocks with a rim of foam: clutter as large as boats."""
    world = site.world
    for _ in range(count):
        centre = site.at(world.uniform(0, site.w), world.uniform(0, site.h))
        radius = world.uniform(1.5, 9) / world.gsd
        if not world.near(centre, radius):
            continue
        t = np.linspace(0, 2 * math.pi, 9)[:-1]
        r = radius * world.rng.uniform(0.5, 1.0, 8)
        ring = centre + np.stack([np.cos(t) * r * world.uniform(0.5, 1), np.sin(t) * r], axis=1)
        fill_convex(sea.foam, (ring - centre) * 1.35 + centre, 170)
        world.take(centre + box(-radius, -radius, radius, radius) * 1.3, 4)
        stone = mix(world.biome.soil[0], rgb(70, 66, 60), world.uniform(0.2, 0.9))
        world.low.append(lambda ring=ring, centre=centre, stone=stone: _rock(world, ring, centre, stone))  # type: ignore[misc]


def _rock(world: World, ring: Points, centre: Points, stone: palette.Colour) -> None:
    world.canvas.convex(ring + world.shadow * 1.2, rgb(22, 36, 42))
    world.canvas.convex(ring, palette.shade(stone, 0.75))
    world.canvas.convex((ring - centre) * 0.7 + centre + world.sun * 0.6, palette.shade(stone, 1.2))
