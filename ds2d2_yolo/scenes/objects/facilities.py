"""Storage tanks and sports courts."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from ds2d2_yolo.scenes.drawing import palette
from ds2d2_yolo.scenes.drawing.canvas import Points, fill_disc
from ds2d2_yolo.scenes.drawing.geometry import Pose, box
from ds2d2_yolo.scenes.drawing.palette import Colour, mix, rgb, shade, vary
from ds2d2_yolo.scenes.site import Site
from ds2d2_yolo.scenes.world import COURT, TANK, World

TANK_COLOURS = (rgb(220, 219, 212), rgb(204, 200, 190), rgb(182, 180, 174), rgb(168, 150, 130), rgb(128, 140, 132))


def add_tank(site: Site, x: float, y: float, diameter: float, colour: Colour, floating: bool) -> bool:
    """Put a storage tank on the site; its label is the upright square about its rim."""
    world = site.world
    side = diameter / world.gsd
    pose = Pose(site.at(x, y), np.array([side, 0.0]), np.array([0.0, side]))
    if not world.add(TANK, pose):
        return False
    height = min(16.0, 3 + diameter * world.uniform(0.25, 0.5))
    tone = vary(world.rng, colour, 0.06)
    level = world.uniform(0.05, 0.85) * height if floating else 0.0
    phase = world.uniform(0, 2 * math.pi)
    world.cast_round(pose.centre, side / 2, height)
    world.low.append(lambda: _draw_tank(world, pose.centre, side / 2, tone, floating, level, phase))
    return True


def _draw_tank(
    world: World, centre: Points, radius: float, tone: Colour, floating: bool, level: float, phase: float
) -> None:
    """Draw the rim, then a cone roof shaded by the sun, or a floating roof with the wall's shadow on it."""
    canvas = world.canvas
    canvas.disc(centre, radius, shade(tone, 0.78))
    canvas.disc(centre, radius * 0.965, mix(tone, rgb(255, 255, 250), 0.35))
    inner = radius * 0.93
    if floating:
        _floating_roof(world, centre, inner, tone, level)
    else:
        _cone_roof(world, centre, inner, tone)
    walkway = np.array([math.cos(phase), math.sin(phase)])
    if radius > 5:
        across = np.stack([centre + walkway * radius * 0.94, centre + walkway * radius * 0.1])
        canvas.stroke(across, max(0.5, radius * 0.035), shade(tone, 0.62))
    if radius > 4:
        vent = centre + np.array([-walkway[1], walkway[0]]) * radius * (0.0 if not floating else 0.4)
        canvas.disc(vent + world.shadow * 0.8, radius * 0.07, shade(tone, 0.5))
        canvas.disc(vent, radius * 0.06, mix(tone, rgb(250, 250, 246), 0.4))


def _cone_roof(world: World, centre: Points, radius: float, tone: Colour) -> None:
    sectors = 20 if radius > 8 else 10
    angles = np.linspace(0, 2 * math.pi, sectors + 1)
    for a, b in pairwise(angles.tolist()):
        middle = (a + b) / 2
        facing = float(math.cos(middle) * world.sun[0] + math.sin(middle) * world.sun[1])
        ring = np.array([[0, 0], [math.cos(a), math.sin(a)], [math.cos(b), math.sin(b)]]) * radius + centre
        canvas_tone = shade(tone, 0.97 + 0.10 * facing)
        world.canvas.convex(ring, canvas_tone)
    if world.chance(0.3):
        world.canvas.disc(centre, radius * world.uniform(0.3, 0.6), shade(tone, world.uniform(0.86, 1.04)))


def _floating_roof(world: World, centre: Points, radius: float, tone: Colour, level: float) -> None:
    deck = mix(tone, vary(world.rng, rgb(132, 130, 126), 0.2), 0.55)
    canvas = world.canvas
    canvas.disc(centre, radius, shade(deck, 0.48))
    lit = centre + world.shadow * level
    low = np.floor((centre - radius) * 2 - 2).astype(int).clip(0, canvas.side)
    high = np.ceil((centre + radius) * 2 + 2).astype(int).clip(0, canvas.side)
    if (high <= low).any():
        return
    wall = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
    sunlit = wall.copy()
    corner = low / 2
    fill_disc(wall, centre - corner, radius, 255)
    fill_disc(sunlit, lit - corner, radius, 255)
    window = canvas.image[low[1] : high[1], low[0] : high[0]]
    window[(wall & sunlit) > 0] = deck
    shrunk = np.zeros_like(sunlit)
    fill_disc(shrunk, centre - corner, radius * 0.82, 255)
    window[(wall & sunlit & ~shrunk) > 0] = shade(deck, 1.14)


COURT_SCHEMES = (
    (rgb(62, 96, 124), rgb(78, 112, 84)),
    (rgb(74, 112, 86), rgb(134, 74, 62)),
    (rgb(152, 92, 70), rgb(146, 86, 66)),
    (rgb(84, 122, 92), rgb(66, 98, 76)),
    (rgb(56, 82, 122), rgb(66, 96, 134)),
    (rgb(150, 76, 66), rgb(86, 116, 92)),
    (rgb(128, 124, 118), rgb(112, 108, 104)),
    (rgb(108, 84, 128), rgb(82, 112, 96)),
)
TENNIS, BASKETBALL, FOOTBALL, HANDBALL = (23.77, 10.97), (28.0, 15.0), (105.0, 68.0), (40.0, 20.0)


def _arc(u: float, v: float, radius: float, start: float, end: float, size: tuple[float, float]) -> Points:
    """Return an arc in unit coordinates, its centre and radius in metres on a court of the given size."""
    t = np.linspace(start, end, 13)
    return np.stack([(u + radius * np.cos(t)) / size[0], (v + radius * np.sin(t)) / size[1]], axis=1)


def _outline(u0: float, v0: float, u1: float, v1: float, size: tuple[float, float]) -> Points:
    ring = box(u0 / size[0], v0 / size[1], u1 / size[0], v1 / size[1])
    return np.concatenate([ring, ring[:1]])


def _tennis_lines() -> list[Points]:
    s = TENNIS
    return [
        _outline(-11.885, -4.115, 11.885, 4.115, s),
        _outline(-6.4, -4.115, 6.4, 4.115, s),
        np.array([[-6.4 / s[0], 0], [6.4 / s[0], 0]]),
    ]


def _basketball_lines() -> list[Points]:
    s, lines = BASKETBALL, [np.array([[0.0, -0.5], [0.0, 0.5]]), _arc(0, 0, 1.8, 0, 2 * math.pi, BASKETBALL)]
    for side in (1, -1):
        turn = 0.0 if side < 0 else math.pi
        lines.append(_outline(side * 14, -2.45, side * 8.2, 2.45, s))
        lines.append(_arc(side * 8.2, 0, 1.8, turn - math.pi / 2, turn + math.pi / 2, s))
        lines.append(_arc(side * 12.4, 0, 6.75, turn - math.pi / 2, turn + math.pi / 2, s))
    return lines


def _football_lines() -> list[Points]:
    s, lines = FOOTBALL, [np.array([[0.0, -0.5], [0.0, 0.5]]), _arc(0, 0, 9.15, 0, 2 * math.pi, FOOTBALL)]
    for side in (1, -1):
        lines += [_outline(side * 52.5, -20.16, side * 36, 20.16, s), _outline(side * 52.5, -9.16, side * 47, 9.16, s)]
        turn = 0.0 if side < 0 else math.pi
        lines.append(_arc(side * 41.5, 0, 9.15, turn - 0.92, turn + 0.92, s))
    return lines


def _handball_lines() -> list[Points]:
    lines = [np.array([[0.0, -0.5], [0.0, 0.5]])]
    for side in (1, -1):
        turn = 0.0 if side < 0 else math.pi
        lines.append(_arc(side * 20, 0, 6.0, turn - math.pi / 2, turn + math.pi / 2, HANDBALL))
        lines.append(_arc(side * 20, 0, 9.0, turn - 1.2, turn + 1.2, HANDBALL))
    return lines


SPORTS = {
    "tennis": (TENNIS, _tennis_lines()),
    "basketball": (BASKETBALL, _basketball_lines()),
    "football": (FOOTBALL, _football_lines()),
    "handball": (HANDBALL, _handball_lines()),
}


def add_court(
    site: Site, x: float, y: float, sport: str, scheme: tuple[Colour, Colour], heading: float = 0.0, scale: float = 1.0
) -> bool:
    """Put a court on the site; its label is the rectangle of the outer lines, without the run-off."""
    world, (size, lines) = site.world, SPORTS[sport]
    pose = site.pose(x, y, size[0] * scale, size[1] * scale, heading)
    if not world.add(COURT, pose):
        return False
    faded = world.uniform(0.1, 0.5)
    world.low.insert(0, lambda: _draw_court(world, pose, sport, lines, scheme[0], faded))
    return True


def _draw_court(world: World, pose: Pose, sport: str, lines: list[Points], surface: Colour, faded: float) -> None:
    """Draw surface and lines; a football pitch keeps its turf, mown in stripes."""
    canvas, inner = world.canvas, pose.drawn
    width = max(0.55, 0.14 / world.gsd)
    if sport == "football":
        count = int(world.rng.integers(8, 16))
        edges = np.linspace(-0.5, 0.5, count + 1)
        for k in range(count):
            tint = palette.rgb(30, 60, 24) if k % 2 else palette.rgb(150, 170, 100)
            canvas.glaze([inner.map(box(edges[k], -0.5, edges[k + 1], 0.5))], tint, 0.16)
    else:
        canvas.glaze([inner.corners], surface, 0.9)
    ground = surface if sport != "football" else world.biome.grass[1]
    paint = mix(rgb(228, 227, 220), ground, faded)
    within = Pose(pose.centre, pose.along * (1 - width / pose.length), pose.across * (1 - width / pose.width))
    for line in [np.concatenate([within.corners, within.corners[:1]]), *(within.map(line) for line in lines)]:
        canvas.stroke(line, width * 0.8, paint)
    if sport == "tennis":
        net = pose.map(np.array([[0.0, -0.5], [0.0, 0.5]]))
        canvas.stroke(net + world.shadow * 0.9, 0.6, shade(surface, 0.5))
        canvas.stroke(net, 0.5, rgb(214, 214, 208))
