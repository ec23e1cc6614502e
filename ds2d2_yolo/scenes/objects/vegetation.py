"""Trees, groves, hedges and fields."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from ds2d2_yolo.scenes.drawing.canvas import SCALE, Points, strip
from ds2d2_yolo.scenes.drawing.geometry import box
from ds2d2_yolo.scenes.drawing.noise import SINE, U8, fractal
from ds2d2_yolo.scenes.drawing.palette import Colour, mix, ramp, vary
from ds2d2_yolo.scenes.site import Site
from ds2d2_yolo.scenes.world import BUILT, OBJECT, PAVED, TREE, World

CROWNS = (1.3, 1.9, 2.6, 3.2, 3.9, 4.7, 6.0, 7.5)  # radii in metres


@dataclass(frozen=True)
class Crown:
    """A tree crown from above: picture, mask, and radius in pixels of the supersampled picture."""

    picture: U8
    mask: U8
    radius: int


class Nursery:
    """Tree crowns of a scene, drawn once and planted many times."""

    def __init__(self, world: World) -> None:
        """Draw crowns of several sizes, lit by the scene's sun."""
        self.world = world
        side = 64 * 3
        self._noise = fractal(world.rng, side, 10, 0.8)
        self._lumps = fractal(world.rng, side, 22, 0.7)
        largest = 60
        self.crowns = [
            [self._crown(min(largest, max(2, round(m * SCALE / world.gsd)))) for _ in range(3)] for m in CROWNS
        ]

    def _crown(self, radius: int) -> Crown:
        world, side = self.world, 2 * radius + 1
        dy, dx = (int(v) for v in world.rng.integers(0, len(self._noise) - side, 2))
        noise = self._noise[dy : dy + side, dx : dx + side].astype(np.int32)
        lumps = self._lumps[dy : dy + side, dx : dx + side].astype(np.int32)
        axis = (np.arange(side) - radius) / radius
        distance = axis[None, :] ** 2 + axis[:, None] ** 2
        mask = (distance * 190 + (lumps - 128) * 1.25 < 128).astype(np.uint8) * 255
        facing = axis[None, :] * world.sun[0] + axis[:, None] * world.sun[1]
        light = 110 + 78 * facing + (noise - 128) * 0.55 + (lumps - 128) * 0.45 - 34 * distance
        leaves = [vary(world.rng, c, 0.12) for c in world.biome.leaves]
        tone = mix(leaves[1], leaves[2], world.uniform(-0.3, 0.5))
        table = ramp([leaves[0], tone, leaves[2]])
        picture = table[np.clip(light, 0, 255).astype(np.uint8)]
        return Crown(np.ascontiguousarray(picture), mask, radius)

    def plant(self, centre: Points, metres: float, force: bool = False) -> bool:
        """Plant a tree at a point in pixels unless something stands there; it may hang over nothing labelled."""
        world = self.world
        reach = metres / world.gsd
        if not world.near(centre, reach):
            return False
        around = centre + box(-reach, -reach, reach, reach)
        if not world.is_free(around, OBJECT | BUILT if force else OBJECT | BUILT | PAVED):
            return False
        nearest = min(range(len(CROWNS)), key=lambda k: abs(CROWNS[k] - metres))
        crown = world.pick(self.crowns[nearest])
        world.take(around, TREE)
        world.cast_round(centre, crown.radius / SCALE * 0.85, metres * world.uniform(0.9, 1.5), high=True)
        world.high.append(lambda: self._stamp(centre, crown))
        return True

    def _stamp(self, centre: Points, crown: Crown) -> None:
        canvas, r = self.world.canvas, crown.radius
        x, y = (int(v) for v in np.floor(centre * SCALE))
        x0, y0 = max(0, x - r), max(0, y - r)
        x1, y1 = min(canvas.side, x + r + 1), min(canvas.side, y + r + 1)
        if x1 <= x0 or y1 <= y0:
            return
        rows, columns = slice(y0 - y + r, y1 - y + r), slice(x0 - x + r, x1 - x + r)
        cv2.copyTo(crown.picture[rows, columns], crown.mask[rows, columns], canvas.image[y0:y1, x0:x1])


def scatter(site: Site, nursery: Nursery, count: int, low: float = 1.3, high: float = 4.7) -> None:
    """Plant trees and shrubs over a site, most of them in clumps."""
    world, left = site.world, count
    while left > 0:
        x, y = world.uniform(0, site.w), world.uniform(0, site.h)
        clump = min(left, int(world.rng.geometric(0.22)))
        spread = 2.2 * clump**0.5 + 1
        size = world.uniform(low, high)
        for _ in range(clump):
            spot = x + world.uniform(-spread, spread), y + world.uniform(-spread, spread)
            if 0 < spot[0] < site.w and 0 < spot[1] < site.h:
                nursery.plant(site.at(*spot), max(1.2, size * world.uniform(0.45, 1.1)))
        left -= clump


def green(site: Site) -> None:
    """Cover a site with lawn: a random tint, mown stripes or worn ground here and there, a trodden path."""
    world, canvas = site.world, site.world.canvas
    canvas.textured([site.all()], world.texture("lawn"))
    tint = vary(world.rng, world.pick([*world.biome.grass, world.biome.soil[1]]), 0.2)
    canvas.glaze([site.all()], tint, world.uniform(0.1, 0.6), world.rough_large)
    if world.chance(0.4):
        worn = mix(world.biome.soil[1], world.biome.grass[2], world.uniform(0.2, 0.7))
        for _ in range(int(world.rng.integers(1, 5))):
            spot = site.at(world.uniform(0, site.w), world.uniform(0, site.h))
            t = np.linspace(0, 2 * math.pi, 13)[:-1]
            r = world.uniform(1.5, 9) / world.gsd * world.rng.uniform(0.5, 1.0, 12)
            patch = spot + np.stack([np.cos(t) * r, np.sin(t) * r], axis=1)
            canvas.glaze([patch], worn, world.uniform(0.2, 0.7), world.fine_large)
    if world.chance(0.3):
        stripe = world.uniform(1.6, 4.0)
        for y in np.arange(0, site.h, 2 * stripe):
            band = site.rect(0, float(y), site.w, min(site.h, float(y) + stripe))
            canvas.glaze([band], world.biome.grass[2], 0.12)
    if world.chance(0.35):
        path = np.array(
            [[0, world.uniform(0, site.h)], [site.w / 2, world.uniform(0, site.h)], [site.w, world.uniform(0, site.h)]]
        )
        canvas.glaze([site.px(quad) for quad in strip(path, 0.9)], world.biome.soil[2], 0.5)


def row(
    site: Site, nursery: Nursery, start: tuple[float, float], end: tuple[float, float], gap: float, force: bool = True
) -> None:
    """Plant a row of trees, on paved ground too if `force`."""
    world = site.world
    count = max(2, int(math.hypot(end[0] - start[0], end[1] - start[1]) / gap))
    size = world.uniform(1.8, 3.6)
    for k in range(count):
        if world.chance(0.88):
            t = (k + world.uniform(-0.15, 0.15)) / (count - 1)
            spot = site.at(start[0] + (end[0] - start[0]) * t, start[1] + (end[1] - start[1]) * t)
            nursery.plant(spot, size * world.uniform(0.8, 1.2), force)


def grove(site: Site, nursery: Nursery, cover: float = 1.0) -> None:
    """Plant a wood whose edge follows noise; `cover` 1 fills the site, 0 leaves it bare."""
    world = site.world
    pitch = max(3.6, 3.0 * world.gsd * 3)
    edge = fractal(world.rng, 64, 24, 0.6)
    threshold = 255 - cover * 255
    columns, rows = int(site.w / pitch), int(site.h / pitch)
    spots = [(i, j) for j in range(rows + 1) for i in range(columns + 1)]
    order = world.rng.permutation(len(spots))
    for k in order:
        i, j = spots[int(k)]
        if edge[j * 63 // max(rows, 1), i * 63 // max(columns, 1)] < threshold:
            continue
        x, y = (i + world.uniform(-0.7, 0.7)) * pitch, (j + world.uniform(-0.7, 0.7)) * pitch
        nursery.plant(site.at(x, y), pitch * world.uniform(0.55, 1.05))


def field(site: Site, colour: Colour) -> None:
    """Paint a field with furrows along the site's x axis and tramlines."""
    world, canvas = site.world, site.world.canvas
    masked = canvas.mask_of([site.all()])
    if masked is None:
        return
    mask, rows, columns = masked
    period = max(3.2, world.uniform(0.8, 3.0) / world.gsd) * SCALE
    direction = site.angle + math.pi / 2
    kx, ky = round(math.cos(direction) * 65536 / period), round(math.sin(direction) * 65536 / period)
    x, y = np.arange(columns.start, columns.stop), np.arange(rows.start, rows.stop)
    rough, fine = world.rough_large[rows, columns], world.fine_large[rows, columns]
    phase = (((x * kx)[None, :] + (y * ky)[:, None]) >> 8) + fine // 4
    furrow = SINE[(phase & 255).astype(np.uint8)].astype(np.int32)
    depth = int(world.rng.integers(6, 40))
    value = (
        128 + ((furrow - 128) * depth >> 7) + (rough.astype(np.int32) - 128) // 2 + (fine.astype(np.int32) - 128) // 4
    )
    base = vary(world.rng, colour, 0.12)
    contrast = world.uniform(0.12, 0.3)
    table = ramp([mix(base, (30, 40, 40), contrast), base, mix(base, (190, 215, 220), contrast)])
    cv2.copyTo(table[np.clip(value, 0, 255).astype(np.uint8)], mask, canvas.image[rows, columns])
    tram = world.uniform(14, 26)
    at = world.uniform(2, tram)
    while at < site.h and world.gsd < 0.8:
        for wheel in (-0.9, 0.9):
            canvas.glaze([site.rect(0, at + wheel - 0.2, site.w, at + wheel + 0.2)], mix(base, (60, 80, 100), 0.5), 0.5)
        at += tram


def bales(site: Site, count: int) -> None:
    """Scatter hay bales, which look like small tanks or cars."""
    world = site.world
    tone = vary(world.rng, (120, 168, 190), 0.1)
    for _ in range(count):
        x, y = world.uniform(0, site.w), world.uniform(0, site.h)
        pose = site.pose(x, y, world.uniform(1.3, 2.6), 1.3, world.pick((0.0, 0.1, math.pi / 2)))
        if not world.is_free(pose.corners, OBJECT | BUILT | PAVED):
            continue
        world.cast(pose.corners, 1.2)
        world.canvas.convex(pose.corners, tone)
