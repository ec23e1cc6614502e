"""Houses, halls and what stands on and beside them."""

from __future__ import annotations

import math

import cv2
import numpy as np

from ds2d2_yolo.scenes.drawing import palette
from ds2d2_yolo.scenes.drawing.canvas import Points
from ds2d2_yolo.scenes.drawing.geometry import Pose, box
from ds2d2_yolo.scenes.drawing.palette import Colour, mix, rgb, shade, vary
from ds2d2_yolo.scenes.site import Site
from ds2d2_yolo.scenes.world import BUILT, OBJECT, World

FLAT_ROOFS = (
    rgb(196, 195, 190),
    rgb(168, 166, 160),
    rgb(140, 138, 134),
    rgb(112, 110, 108),
    rgb(208, 206, 200),
    rgb(150, 142, 128),
    rgb(128, 116, 104),
    rgb(118, 134, 146),
    rgb(150, 96, 82),
)


def _stand(world: World, pose: Pose, height: float) -> Pose | None:
    """Take the ground of a building, cast its shadow and queue its walls.

    Returns:
        (Pose | None): The roof, shifted as the camera sees it; None where something stands already.
    """
    roof = Pose(pose.centre + world.lean * height, pose.along, pose.across)
    both = np.concatenate([pose.corners, roof.corners])
    seen: Points = cv2.convexHull(both.astype(np.float32))[:, 0].astype(np.float64)
    if not world.is_free(seen, OBJECT | BUILT):
        return None
    world.take(seen, BUILT)
    world.cast(pose.corners, height, high=True)
    wall = vary(world.rng, world.pick((rgb(150, 140, 126), rgb(120, 114, 108), rgb(176, 172, 164))), 0.15)
    tone = shade(wall, 0.55 + 0.4 * max(0.0, -float((world.lean * world.sun).sum()) / (math.hypot(*world.lean) + 1e-9)))
    world.high.append(lambda: world.canvas.convex(seen, tone))
    return roof


def facing(world: World, direction: Points) -> float:
    """Return how bright a surface that slopes down towards a direction (pixels) is, about 1."""
    unit = direction / max(1e-9, math.hypot(*direction))
    return 0.9 + 0.26 * float((unit * world.sun).sum())


def house(site: Site, x: float, y: float, length: float, width: float, heading: float) -> bool:
    """Build a house with a gable, hip or flat roof, often with a wing or a porch."""
    world = site.world
    pose = site.pose(x, y, length, width, heading)
    height = world.uniform(4.0, 7.5)
    roof = _stand(world, pose, height)
    if roof is None:
        return False
    pose = roof
    colour = vary(world.rng, world.pick(world.biome.roofs), 0.12)
    hip = world.uniform(0.5, 1.0) * width / length * 0.5 if world.chance(0.6) else 0.0
    wing = None
    if world.chance(0.55):
        side, along = world.pick((-1.0, 1.0)), world.uniform(-0.25, 0.25)
        deep, wide = world.uniform(0.7, 1.0), world.uniform(0.35, 0.5)
        wing = box(
            along - wide * width / length, min(0, side * deep), along + wide * width / length, max(0, side * deep)
        )
        world.cast(pose.map(wing), height * 0.9, high=True)
        world.take(pose.map(wing), BUILT)
    world.high.append(lambda: _draw_house(world, pose, colour, hip, wing))
    return True


def _draw_house(world: World, pose: Pose, colour: Colour, hip: float, wing: Points | None) -> None:
    canvas = world.canvas
    if wing is not None:
        middle = float(wing[:, 0].mean())
        for side, keep in ((-1.0, wing[:, 0] < middle), (1.0, wing[:, 0] > middle)):
            half = wing.copy()
            half[~keep, 0] = middle
            canvas.convex(pose.map(half), shade(colour, facing(world, pose.along * side)))
    ridge = np.array([[-0.5 + hip, 0.0], [0.5 - hip, 0.0]])
    for side in (-1.0, 1.0):
        slope = np.array([[-0.5, 0.5 * side], [0.5, 0.5 * side], ridge[1], ridge[0]])
        canvas.convex(pose.map(slope), shade(colour, facing(world, pose.across * side)))
        if hip:
            end = np.array([[0.5 * side, -0.5], [0.5 * side, 0.5], ridge[1 if side > 0 else 0]])
            canvas.convex(pose.map(end), shade(colour, facing(world, pose.along * side)))
    canvas.stroke(pose.map(ridge), max(0.4, 0.25 / world.gsd), mix(colour, rgb(235, 230, 222), 0.25))
    if world.chance(0.5):
        at = np.array([[world.uniform(-0.3, 0.3), world.uniform(-0.15, 0.15)]])
        chimney = pose.map(at) + box(-0.5, -0.5, 0.5, 0.5) / world.gsd
        canvas.convex(chimney + world.shadow * 1.5, shade(colour, 0.5))
        canvas.convex(chimney, rgb(128, 104, 94))
    if world.chance(0.22):
        side = world.pick((-1.0, 1.0))
        panel = box(-0.25, min(side * 0.1, side * 0.4), 0.2, max(side * 0.1, side * 0.4))
        canvas.convex(pose.map(panel), rgb(40, 48, 66))
        for u in np.linspace(-0.25, 0.2, 6)[1:-1]:
            canvas.convex(pose.map(box(u - 0.004, panel[:, 1].min(), u + 0.004, panel[:, 1].max())), rgb(96, 104, 118))


def hall(
    site: Site, x: float, y: float, length: float, width: float, heading: float = 0.0, height: float = 8.0
) -> bool:
    """Build a flat-roofed hall, office or shop with parapet, seams, skylights and air conditioners."""
    world = site.world
    pose = site.pose(x, y, length, width, heading)
    roof = _stand(world, pose, height)
    if roof is None:
        return False
    colour = vary(world.rng, world.pick(FLAT_ROOFS), 0.1)
    style = world.weighted((("flat", 5.0), ("seams", 3.0), ("gable", 2.0)))
    world.high.append(lambda: _draw_hall(world, roof, colour, style))
    return True


def _draw_hall(world: World, pose: Pose, colour: Colour, style: str) -> None:
    canvas = world.canvas
    canvas.convex(pose.corners, mix(colour, rgb(238, 236, 230), 0.3))
    edge = max(0.7, 0.5 / world.gsd)
    inner = Pose(pose.centre, pose.along * (1 - 2 * edge / pose.length), pose.across * (1 - 2 * edge / pose.width))
    canvas.convex(inner.corners, shade(colour, 0.62))
    canvas.convex(inner.corners * 0.99 + inner.centre * 0.01 - world.shadow * 0.4, colour)
    canvas.glaze([inner.corners], shade(colour, 0.72), 0.55, world.rough_large)
    if style == "gable":
        for side in (-1.0, 1.0):
            slope = np.array([[-0.5, 0.5 * side], [0.5, 0.5 * side], [0.5, 0.0], [-0.5, 0.0]])
            canvas.glaze([pose.map(slope)], shade(colour, facing(world, pose.across * side) ** 2), 0.8)
    if style != "flat":
        count = max(3, int(pose.length / max(4.0, 3.0 / world.gsd)))
        for u in np.linspace(-0.49, 0.49, count):
            canvas.stroke(inner.map(np.array([[u, -0.49], [u, 0.49]])), 0.5, shade(colour, world.uniform(0.86, 0.97)))
    _roof_patches(world, inner, colour)
    _roof_plant(world, inner, colour)


def _roof_patches(world: World, inner: Pose, colour: Colour) -> None:
    """Add stains, repairs and rows of skylights."""
    for _ in range(int(world.rng.integers(1, 5))):
        u, v = world.uniform(-0.45, 0.3), world.uniform(-0.45, 0.3)
        patch = box(u, v, u + world.uniform(0.05, 0.3), v + world.uniform(0.05, 0.3))
        world.canvas.glaze([inner.map(np.clip(patch, -0.5, 0.5))], shade(colour, world.uniform(0.8, 1.12)), 0.5)
    if world.chance(0.45):
        lit = mix(colour, world.pick((rgb(226, 230, 232), rgb(96, 112, 124))), 0.7)
        rows = int(world.rng.integers(1, 4))
        count = max(2, int(inner.length * world.gsd / world.uniform(6, 11)))
        for j in range(rows):
            v = (j + 1) / (rows + 1) - 0.5
            for u in np.linspace(-0.44, 0.44, count):
                size = np.array([1.3 / world.gsd / inner.length, 0.8 / world.gsd / inner.width])
                world.canvas.convex(inner.map(box(-1, -1, 1, 1) * size + np.array([u, v])), lit)


def _roof_plant(world: World, inner: Pose, colour: Colour) -> None:
    """Add air conditioners and vents: small boxes with shadows, the size of cars."""
    area = inner.length * inner.width * world.gsd**2
    for _ in range(min(26, int(area / world.uniform(90, 400)))):
        u, v = world.uniform(-0.42, 0.42), world.uniform(-0.42, 0.42)
        size = np.array([world.uniform(0.8, 2.4) / inner.length, world.uniform(0.7, 1.6) / inner.width]) / world.gsd
        unit = inner.map(box(-0.5, -0.5, 0.5, 0.5) * size + np.array([u, v]))
        world.canvas.convex(unit + world.shadow * 1.3, shade(colour, 0.5))
        tone = vary(world.rng, mix(colour, rgb(206, 207, 206), 0.7), 0.1)
        world.canvas.convex(unit, tone)
        if size[0] * inner.length > 5:
            world.canvas.disc(unit.mean(axis=0), size[1] * inner.width * 0.28, shade(tone, 0.6))


def crate(
    site: Site, x: float, y: float, length: float, width: float, heading: float, height: float, colour: Colour
) -> bool:
    """Put a box (container, skip, shed) on the ground: clutter as large as a car or truck."""
    world = site.world
    pose = site.pose(x, y, length, width, heading)
    if not world.is_free(pose.corners, OBJECT | BUILT) or not world.near(pose.centre, 20):
        return False
    world.take(pose.corners, BUILT)
    world.cast(pose.corners, height)
    world.low.append(lambda: _draw_crate(world, pose, colour))
    return True


def _draw_crate(world: World, pose: Pose, colour: Colour) -> None:
    canvas = world.canvas
    canvas.convex(pose.corners, shade(colour, 0.84))
    canvas.convex(pose.map(box(-0.48, -0.44, 0.48, 0.44)), colour)
    side = 1.0 if float((pose.across * world.sun).sum()) > 0 else -1.0
    canvas.convex(pose.map(box(-0.48, 0.3 * side, 0.48, 0.44 * side)), mix(colour, rgb(250, 246, 236), 0.18))
    if pose.length > 12:
        for u in np.linspace(-0.42, 0.42, max(4, round(pose.length / 4))):
            canvas.convex(pose.map(box(u - 0.008, -0.44, u + 0.008, 0.44)), shade(colour, 0.9))


def container_stack(site: Site, gap: float = 0.35) -> None:
    """Fill a site with rows of containers, the best likeness of trucks that a port has."""
    world = site.world
    x = 0.0
    while x + 12.2 < site.w:
        long = world.chance(0.7)
        step = 12.2 if long else 6.1
        y = 0.0
        while y + 2.44 < site.h:
            if world.chance(0.86):
                colour = vary(world.rng, world.pick(palette.CONTAINER_COLOURS), 0.18)
                tall = 2.6 * int(world.rng.integers(1, 4))
                crate(site, x + step / 2, y + 1.22, step - 0.2, 2.44, 0.0, tall, colour)
            y += 2.44 + (0.12 if world.chance(0.85) else gap)
        x += step + (0.4 if world.chance(0.7) else 6.0)


def pool(site: Site, x: float, y: float, heading: float) -> None:
    """Dig a swimming pool with a pale surround."""
    world = site.world
    pose = site.pose(x, y, world.uniform(6, 11), world.uniform(3.2, 5), heading)
    around = Pose(pose.centre, pose.along * 1.35, pose.across * 1.5)
    if not world.is_free(around.corners, OBJECT | BUILT):
        return
    world.take(around.corners, BUILT)
    canvas = world.canvas
    canvas.convex(around.corners, vary(world.rng, rgb(196, 188, 176), 0.1))
    water = vary(world.rng, rgb(92, 168, 184), 0.12)
    if world.chance(0.35):
        canvas.disc(pose.centre, pose.width / 2, water)
    else:
        canvas.convex(pose.corners, shade(water, 0.86))
        canvas.convex(pose.map(box(-0.46, -0.42, 0.46, 0.42)), water)


def trampoline(site: Site, x: float, y: float) -> None:
    """Put a round trampoline or paddling pool in a garden: a likeness of a small tank."""
    world = site.world
    centre, radius = site.at(x, y), world.uniform(1.3, 2.1) / world.gsd
    if world.is_free(centre + box(-radius, -radius, radius, radius), OBJECT | BUILT):
        rim = world.pick((rgb(52, 84, 140), rgb(60, 110, 76), rgb(190, 190, 186)))
        world.cast_round(centre, radius, 0.9)
        world.canvas.disc(centre, radius, rim)
        world.canvas.disc(centre, radius * 0.76, rgb(36, 38, 42) if world.chance(0.7) else rgb(104, 166, 186))
