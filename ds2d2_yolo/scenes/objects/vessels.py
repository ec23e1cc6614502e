"""Ships and boats from above, from a dinghy to a tanker."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from ds2d2_yolo.scenes.drawing import palette
from ds2d2_yolo.scenes.drawing.canvas import Points
from ds2d2_yolo.scenes.drawing.geometry import Pose, box
from ds2d2_yolo.scenes.drawing.palette import Colour, mix, rgb, shade, vary
from ds2d2_yolo.scenes.objects.vehicles import sunny_side
from ds2d2_yolo.scenes.site import Site
from ds2d2_yolo.scenes.world import SHIP, WET, World

Draw = Callable[[World, Pose, float], None]


def hull(bow: float, stern: float, transom: float) -> Points:
    """Return a convex hull outline.

    Args:
        bow (float): Share of the length over which the bow narrows.
        stern (float): Share of the length over which the stern narrows.
        transom (float): Half width of the stern's end.
    """
    t = np.linspace(0, 1, 7)
    fore_u, fore_v = 0.5 - bow * (1 - t), 0.5 * np.sqrt(1 - t**2)
    right = np.concatenate([np.stack([fore_u, fore_v], axis=1), [[0.5, 0.0]]])
    aft = np.array([[-0.5, transom], [-0.5 + stern * 0.4, (transom + 0.5) / 2 + 0.03], [-0.5 + stern, 0.5]])
    side = np.concatenate([aft, right])
    return np.concatenate([side, side[::-1] * np.array([1, -1])])


MERCHANT = hull(0.16, 0.08, 0.36)
BOAT = hull(0.55, 0.1, 0.42)
YACHT = hull(0.62, 0.3, 0.26)
BARGE = hull(0.05, 0.02, 0.46)


def inset(outline: Points, along: float, across: float) -> Points:
    """Return the outline shrunk about its centre."""
    shrunk: Points = outline * np.array([along, across])
    return shrunk


def add_ship(site: Site, x: float, y: float, heading: float, kind: str, length: float) -> Pose | None:
    """Put a vessel on the water; None where it does not fit.

    Args:
        site (Site): Site to put it on.
        x (float): Centre in metres.
        y (float): Centre in metres.
        heading (float): Direction of the bow from the site's x axis in radians.
        kind (str): One of `KINDS`.
        length (float): Length in metres.
    """
    world = site.world
    slender, height, draw = KINDS[kind]
    width = length / (slender * world.uniform(0.9, 1.1))
    pose = site.pose(x, y, length, width, heading)
    if not world.add(SHIP, pose, avoid=0xFF & ~WET):
        return None
    world.cast(pose.map(BARGE if kind == "barge" else MERCHANT), height * length)
    world.low.append(lambda: draw(world, pose.drawn, length))
    return pose


def _bridge(world: World, pose: Pose, at: float, depth: float, wide: float) -> None:
    """Draw a superstructure: white house, wings, dark windows, a funnel aft of it."""
    canvas = world.canvas
    white = vary(world.rng, rgb(222, 222, 216), 0.06)
    drop = world.shadow * (depth * pose.length * world.gsd * 0.35)
    house = pose.map(box(at - depth / 2, -wide, at + depth / 2, wide))
    canvas.convex(house + drop, rgb(58, 48, 46))
    canvas.convex(house, shade(white, 0.9))
    canvas.convex(pose.map(box(at - depth * 0.3, -wide * 0.8, at + depth * 0.38, wide * 0.8)), white)
    canvas.convex(pose.map(box(at + depth * 0.40, -wide * 0.8, at + depth * 0.47, wide * 0.8)), palette.GLASS)
    canvas.convex(pose.map(box(at + depth * 0.1, -0.47, at + depth * 0.3, 0.47)), shade(white, 0.96))
    funnel = world.pick((rgb(60, 60, 62), rgb(160, 60, 48), rgb(50, 78, 120), rgb(204, 170, 80)))
    canvas.convex(pose.map(box(at - depth * 0.75, -0.13, at - depth * 0.42, 0.13)), shade(funnel, 0.8))
    canvas.convex(pose.map(box(at - depth * 0.7, -0.08, at - depth * 0.5, 0.08)), rgb(30, 30, 30))


def _hull(world: World, pose: Pose, outline: Points, side: Colour, deck: Colour) -> None:
    """Draw hull, bulwark and deck; the sunny side of the bulwark is brighter."""
    canvas = world.canvas
    canvas.convex(pose.map(outline), side)
    canvas.convex(pose.map(inset(outline, 0.985, 0.93)), mix(side, rgb(226, 224, 216), 0.5))
    canvas.convex(pose.map(inset(outline, 0.975, 0.84)), deck)


def _hull_colours(world: World) -> tuple[Colour, Colour]:
    side = world.pick((rgb(40, 44, 52), rgb(104, 48, 42), rgb(42, 62, 96), rgb(58, 76, 66), rgb(150, 150, 148)))
    deck = world.pick((rgb(124, 70, 58), rgb(84, 104, 92), rgb(130, 126, 118), rgb(112, 96, 80), rgb(92, 66, 58)))
    return vary(world.rng, side, 0.15), vary(world.rng, deck, 0.15)


def _bulker(world: World, pose: Pose, length: float) -> None:
    canvas = world.canvas
    side, deck = _hull_colours(world)
    _hull(world, pose, MERCHANT, side, deck)
    count = int(world.rng.integers(4, 8))
    edges = np.linspace(-0.3, 0.36, count + 1)
    cover = mix(deck, vary(world.rng, rgb(186, 178, 160), 0.2), world.uniform(0.2, 0.9))
    opened = world.chance(0.25)
    for a, b in pairwise(edges.tolist()):
        hatch = pose.map(box(a + 0.012, -0.28, b - 0.018, 0.28))
        canvas.convex(hatch + world.shadow * 1.6, shade(deck, 0.5))
        canvas.convex(hatch, shade(cover, 0.34) if opened else cover)
        half = box(a + 0.012, -0.28, b - 0.018, -0.01)
        canvas.convex(pose.map(half), shade(cover, 0.5 if opened else 0.9))
        if world.chance(0.5):
            canvas.convex(pose.map(box(b - 0.014, -0.05, b + 0.004, 0.05)), rgb(206, 190, 120))
    _bridge(world, pose, -0.39, 0.07, 0.40)


def _tanker(world: World, pose: Pose, length: float) -> None:
    canvas = world.canvas
    side, deck = _hull_colours(world)
    deck = mix(deck, world.pick((rgb(128, 62, 52), rgb(78, 108, 92))), 0.7)
    _hull(world, pose, MERCHANT, side, deck)
    for v in (-0.1, -0.04, 0.03, 0.09):
        canvas.convex(pose.map(box(-0.32, v - 0.012, 0.36, v + 0.012)), mix(deck, rgb(206, 200, 190), 0.45))
    for u in np.linspace(-0.28, 0.34, 8):
        canvas.convex(pose.map(box(u - 0.003, -0.4, u + 0.003, 0.4)), shade(deck, 0.74))
        for v in (-0.26, 0.26):
            canvas.disc(pose.map(np.array([[u + 0.02, v]]))[0], 0.05 * pose.width, mix(deck, rgb(210, 206, 200), 0.5))
    canvas.convex(pose.map(box(-0.02, -0.42, 0.03, 0.42)), mix(deck, rgb(200, 190, 176), 0.5))
    _bridge(world, pose, -0.39, 0.08, 0.40)


def _boxship(world: World, pose: Pose, length: float) -> None:
    canvas = world.canvas
    side, deck = _hull_colours(world)
    _hull(world, pose, MERCHANT, side, shade(deck, 0.8))
    bay, row = 6.4 / length, 2.6 / (pose.width * world.gsd)
    rows = max(3, int(0.86 / row))
    u = -0.3
    while u < 0.38:
        if world.chance(0.93):
            for k in range(rows):
                v = (k - rows / 2) * row
                if world.chance(0.9):
                    colour = vary(world.rng, world.pick(palette.CONTAINER_COLOURS), 0.2)
                    canvas.convex(pose.map(box(u, v, u + bay * 0.95, v + row * 0.94)), colour)
        u += bay * (1.0 if world.chance(0.5) else 1.1)
    _bridge(world, pose, -0.36, 0.06, 0.44)


def _ferry(world: World, pose: Pose, length: float) -> None:
    canvas = world.canvas
    white = vary(world.rng, rgb(214, 215, 212), 0.06)
    _hull(world, pose, MERCHANT, white, rgb(118, 128, 120))
    for k, bright in enumerate((0.9, 1.0, 1.05)):
        outline = box(-0.42 + 0.07 * k, -0.42 + 0.06 * k, 0.30 - 0.05 * k, 0.42 - 0.06 * k)
        canvas.convex(pose.map(outline) + world.shadow * 2, rgb(96, 100, 102))
        canvas.convex(pose.map(outline), shade(white, bright))
    for v in (-0.35, 0.35):
        for u in np.linspace(-0.3, 0.2, 6):
            canvas.convex(pose.map(box(u - 0.02, v - 0.04, u + 0.02, v + 0.04)), rgb(214, 128, 62))
    canvas.convex(pose.map(box(-0.3, -0.14, -0.18, 0.14)), world.pick((rgb(44, 72, 128), rgb(178, 48, 42))))
    canvas.convex(pose.map(box(0.20, -0.36, 0.225, 0.36)), palette.GLASS)


def _workboat(world: World, pose: Pose, length: float) -> None:
    canvas = world.canvas
    side = world.pick((rgb(40, 74, 118), rgb(130, 48, 42), rgb(46, 50, 54), rgb(60, 98, 84), rgb(206, 204, 196)))
    _hull(world, pose, BOAT, vary(world.rng, side, 0.15), vary(world.rng, rgb(138, 118, 96), 0.2))
    at = world.uniform(-0.1, 0.16)
    house = pose.map(box(at - 0.12, -0.26, at + 0.12, 0.26))
    canvas.convex(house + world.shadow * 2.5, rgb(60, 54, 50))
    canvas.convex(house, rgb(216, 216, 210))
    canvas.convex(pose.map(box(at + 0.07, -0.24, at + 0.12, 0.24)), palette.GLASS)
    for _ in range(4):
        u, v = world.uniform(-0.42, at - 0.2), world.uniform(-0.25, 0.25)
        gear = vary(world.rng, world.pick(palette.CONTAINER_COLOURS), 0.2)
        canvas.convex(pose.map(box(u, v, u + 0.06, v + 0.12)), gear)
    canvas.convex(pose.map(box(-0.3, -0.015, 0.36, 0.015)), rgb(196, 190, 176))


def _motorboat(world: World, pose: Pose, length: float) -> None:
    canvas = world.canvas
    white = vary(world.rng, rgb(226, 226, 222), 0.05)
    side = white if world.chance(0.75) else world.pick((rgb(40, 52, 84), rgb(130, 44, 42), rgb(60, 60, 64)))
    canvas.convex(pose.map(BOAT), shade(side, 0.86))
    canvas.convex(pose.map(inset(BOAT, 0.95, 0.86)), white)
    lit = sunny_side(world, pose)
    canvas.convex(pose.map(box(-0.4, 0.34 * lit, 0.02, 0.44 * lit)), rgb(250, 249, 244))
    well = world.pick((rgb(150, 128, 100), rgb(120, 118, 114), rgb(70, 84, 104), rgb(176, 160, 134)))
    canvas.convex(pose.map(box(-0.44, -0.32, -0.06, 0.32)), well)
    canvas.convex(pose.map(np.array([[0.06, -0.34], [0.14, -0.2], [0.14, 0.2], [0.06, 0.34]])), palette.GLASS)
    if world.chance(0.5):
        cover = vary(world.rng, world.pick((rgb(226, 224, 218), rgb(52, 72, 112), rgb(140, 126, 104))), 0.1)
        canvas.convex(pose.map(box(-0.3, -0.33, 0.02, 0.33)), cover)
    canvas.convex(pose.map(np.array([[0.2, -0.2], [0.38, 0.0], [0.2, 0.2]])), shade(white, 0.92))


def _sailboat(world: World, pose: Pose, length: float) -> None:
    canvas = world.canvas
    white = vary(world.rng, rgb(222, 222, 216), 0.06)
    canvas.convex(pose.map(YACHT), white if world.chance(0.7) else rgb(48, 58, 88))
    deck = mix(white, rgb(170, 140, 104), world.uniform(0, 0.7))
    canvas.convex(pose.map(inset(YACHT, 0.95, 0.84)), deck)
    canvas.convex(pose.map(box(-0.42, -0.18, -0.14, 0.18)), shade(deck, 0.7))
    canvas.convex(pose.map(box(-0.12, -0.24, 0.18, 0.24)), mix(deck, rgb(240, 240, 238), 0.6))
    boom = world.pick((rgb(50, 70, 118), rgb(210, 206, 196), rgb(110, 44, 44)))
    canvas.convex(pose.map(box(-0.38, -0.06, 0.08, 0.06)), boom)
    mast = pose.map(np.array([[0.09, 0.0]]))[0]
    canvas.stroke(np.stack([mast, mast + world.shadow * length * 0.25]), 0.5, shade(deck, 0.55))
    canvas.disc(mast, 0.5, rgb(236, 236, 232))


def _barge(world: World, pose: Pose, length: float) -> None:
    canvas = world.canvas
    side, deck = _hull_colours(world)
    _hull(world, pose, BARGE, side, shade(deck, 0.8))
    load = world.pick((rgb(60, 58, 56), rgb(170, 150, 116), rgb(116, 96, 78), rgb(48, 42, 40)))
    canvas.convex(pose.map(box(-0.34, -0.36, 0.42, 0.36)), shade(load, 0.7))
    for _ in range(5):
        u, v = world.uniform(-0.3, 0.3), world.uniform(-0.12, 0.12)
        radius = world.uniform(0.16, 0.24) * pose.width
        canvas.disc(pose.map(np.array([[u, v]]))[0], radius, vary(world.rng, load, 0.18))
    _bridge(world, pose, -0.42, 0.08, 0.36)


KINDS: dict[str, tuple[float, float, Draw]] = {  # length over width, shadow height over length, drawing
    "bulker": (6.2, 0.06, _bulker),
    "tanker": (5.8, 0.05, _tanker),
    "boxship": (6.4, 0.09, _boxship),
    "ferry": (5.6, 0.11, _ferry),
    "barge": (6.6, 0.03, _barge),
    "workboat": (3.4, 0.1, _workboat),
    "motorboat": (2.9, 0.12, _motorboat),
    "sailboat": (3.3, 0.12, _sailboat),
}
LARGE = ("bulker", "tanker", "boxship", "bulker", "ferry")
