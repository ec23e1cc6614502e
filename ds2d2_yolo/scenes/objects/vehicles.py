"""Cars and trucks from above, in unit coordinates: along the vehicle (nose at +0.5) and across it."""

from __future__ import annotations

import math

import numpy as np

from ds2d2_yolo.scenes.drawing import palette
from ds2d2_yolo.scenes.drawing.canvas import Points
from ds2d2_yolo.scenes.drawing.geometry import Pose, box
from ds2d2_yolo.scenes.drawing.palette import Colour, mix, rgb, shade, vary
from ds2d2_yolo.scenes.site import Site
from ds2d2_yolo.scenes.world import CAR, TRUCK, World

BODY: Points = np.array(
    [
        [0.5, -0.26],
        [0.5, 0.26],
        [0.46, 0.42],
        [0.34, 0.5],
        [-0.42, 0.5],
        [-0.48, 0.42],
        [-0.5, 0.3],
        [-0.5, -0.3],
        [-0.48, -0.42],
        [-0.42, -0.5],
        [0.34, -0.5],
        [0.46, -0.42],
    ]
)
TOP: Points = BODY * np.array([0.95, 0.84])


def _window(front: float, back: float, wide: float, narrow: float) -> Points:
    """Return a screen that is `wide` at its front edge and `narrow` at its back edge (half widths)."""
    return np.array([[front, -wide], [front, wide], [back, narrow], [back, -narrow]])


class _Cabin:
    """Where glass and roof of a body style lie along the car."""

    def __init__(self, screen: tuple[float, float], roof: tuple[float, float], rear: tuple[float, float]) -> None:
        self.screen = _window(screen[0], screen[1], 0.40, 0.35)
        self.roof = box(roof[0], -0.36, roof[1], 0.36)
        self.rear = _window(rear[0], rear[1], 0.33, 0.38)
        self.sides = box(roof[0] + 0.02, -0.43, roof[1] - 0.02, 0.43)


CABINS = (
    (_Cabin((0.24, 0.09), (-0.18, 0.09), (-0.20, -0.32)), 5.0),  # saloon
    (_Cabin((0.24, 0.10), (-0.34, 0.10), (-0.36, -0.44)), 4.0),  # hatchback, estate
    (_Cabin((0.36, 0.24), (-0.43, 0.24), (-0.44, -0.48)), 1.3),  # van
)
PICKUP = _Cabin((0.20, 0.08), (-0.10, 0.08), (-0.10, -0.15))


def sunny_side(world: World, pose: Pose) -> float:
    """Return +1 or -1: the side across the object that faces the sun."""
    return 1.0 if float((pose.across * world.sun).sum()) > 0 else -1.0


def add_car(site: Site, x: float, y: float, heading: float) -> bool:
    """Put a car of random size, style and colour on the site; False where it does not fit."""
    world = site.world
    length, width = world.uniform(4.0, 4.9), world.uniform(1.72, 1.95)
    pickup = world.chance(0.07)
    if pickup:
        length *= 1.13
    pose = site.pose(x, y, length, width, heading)
    if not world.add(CAR, pose):
        return False
    colour = vary(world.rng, world.weighted(palette.CAR_COLOURS), 0.08)
    cabin = PICKUP if pickup else world.weighted(CABINS)
    world.cast(pose.corners, 1.45)
    world.low.append(lambda: draw_car(world, pose.drawn, colour, cabin, pickup))
    return True


def draw_car(world: World, pose: Pose, colour: Colour, cabin: _Cabin, pickup: bool) -> None:
    """Draw a car: dark flanks, bonnet and boot, glass, and a roof a little brighter."""
    canvas = world.canvas
    canvas.convex(pose.map(BODY), shade(colour, 0.74))
    canvas.convex(pose.map(TOP), colour)
    lit = sunny_side(world, pose)
    canvas.convex(pose.map(box(-0.42, 0.34 * lit, 0.40, 0.44 * lit)), mix(colour, rgb(255, 252, 240), 0.16))
    canvas.convex(pose.map(cabin.sides), mix(palette.GLASS, colour, 0.25))
    canvas.convex(pose.map(cabin.screen), palette.GLASS)
    canvas.convex(pose.map(cabin.rear), shade(palette.GLASS, 1.25))
    canvas.convex(pose.map(cabin.roof), mix(colour, rgb(255, 255, 252), 0.09))
    if pickup:
        canvas.convex(pose.map(box(-0.46, -0.38, -0.16, 0.38)), shade(colour, 0.42))
    if pose.length > 18:
        canvas.convex(pose.map(box(0.455, 0.22, 0.49, 0.36)), rgb(220, 220, 212))
        canvas.convex(pose.map(box(0.455, -0.36, 0.49, -0.22)), rgb(220, 220, 212))


TRAILER_COLOURS = (
    (rgb(222, 222, 218), 10),
    (rgb(196, 198, 198), 4),
    (rgb(66, 84, 116), 2),
    (rgb(140, 52, 44), 2),
    (rgb(96, 108, 98), 1),
    (rgb(190, 158, 78), 1),
    (rgb(84, 82, 80), 2),
)
CAB_COLOURS = (rgb(222, 222, 220), rgb(150, 40, 38), rgb(44, 66, 112), rgb(60, 62, 66), rgb(186, 150, 52))


def add_truck(site: Site, x: float, y: float, heading: float, trailer: bool | None = None) -> bool:
    """Put a truck on the site, rigid or with a trailer (None: either); False where it does not fit."""
    world = site.world
    articulated = world.chance(0.6) if trailer is None else trailer
    length = world.uniform(14.5, 18.0) if articulated else world.uniform(7.5, 10.5)
    pose = site.pose(x, y, length, world.uniform(2.5, 2.75), heading)
    if not world.add(TRUCK, pose):
        return False
    load = world.weighted((("box", 6.0), ("tank", 1.2), ("flat", 1.3), ("tipper", 1.2)))
    cargo = vary(world.rng, world.weighted(TRAILER_COLOURS), 0.08)
    cab = vary(world.rng, world.pick(CAB_COLOURS), 0.1)
    nose = 0.5 - (2.6 / length)
    gap = 1.0 / length if articulated else 0.3 / length
    world.cast(pose.map(box(-0.5, -0.5, nose - gap, 0.5)), 1.4 if load == "flat" else 3.6)
    world.cast(pose.map(box(nose, -0.48, 0.5, 0.48)), 2.9)
    world.low.append(lambda: _draw_truck(world, pose.drawn, (nose, gap), load, cargo, cab))
    return True


def _draw_truck(world: World, pose: Pose, cut: tuple[float, float], load: str, cargo: Colour, cab: Colour) -> None:
    """Draw chassis, cab and load."""
    canvas, (nose, gap) = world.canvas, cut
    canvas.convex(pose.map(box(-0.49, -0.34, nose, 0.34)), rgb(44, 43, 42))
    cab_outline = np.array([[0.5, -0.4], [0.5, 0.4], [0.49, 0.48], [nose, 0.48], [nose, -0.48], [0.49, -0.48]])
    canvas.convex(pose.map(cab_outline), shade(cab, 0.8))
    depth = 0.5 - nose
    canvas.convex(pose.map(box(nose, -0.42, 0.5 - depth * 0.34, 0.42)), mix(cab, rgb(255, 255, 250), 0.1))
    canvas.convex(pose.map(box(0.5 - depth * 0.30, -0.42, 0.5 - depth * 0.12, 0.42)), palette.GLASS)
    canvas.convex(pose.map(box(nose + 0.01, -0.38, nose + depth * 0.3, 0.38)), shade(cab, 0.9))
    back = nose - gap
    draw = {"box": _box_body, "tank": _tank_body, "flat": _flat_body, "tipper": _tipper_body}[load]
    draw(world, pose, back, cargo)


def _box_body(world: World, pose: Pose, back: float, cargo: Colour) -> None:
    canvas, lit = world.canvas, sunny_side(world, pose)
    canvas.convex(pose.map(box(-0.5, -0.5, back, 0.5)), shade(cargo, 0.82))
    canvas.convex(pose.map(box(-0.49, -0.43, back - 0.005, 0.43)), cargo)
    canvas.convex(pose.map(box(-0.49, 0.33 * lit, back - 0.005, 0.45 * lit)), mix(cargo, rgb(255, 253, 245), 0.3))
    ribs = np.linspace(-0.46, back - 0.03, max(3, round((back + 0.5) * pose.length / 7)))
    for u in ribs:
        canvas.convex(pose.map(box(u - 0.002, -0.42, u + 0.002, 0.42)), shade(cargo, 0.93))


def _tank_body(world: World, pose: Pose, back: float, cargo: Colour) -> None:
    base = mix(cargo, rgb(190, 192, 194), 0.6)
    for k, bright in enumerate((0.62, 0.86, 1.0, 1.16, 0.98, 0.8, 0.6)):
        v = (k / 7 - 0.5) * sunny_side(world, pose)
        world.canvas.convex(pose.map(box(-0.5, v, back, v + sunny_side(world, pose) / 7)), shade(base, bright))
    for u in np.linspace(-0.38, back - 0.1, 3):
        world.canvas.convex(pose.map(box(u - 0.012, -0.12, u + 0.012, 0.12)), rgb(70, 70, 72))


def _flat_body(world: World, pose: Pose, back: float, cargo: Colour) -> None:
    canvas = world.canvas
    canvas.convex(pose.map(box(-0.5, -0.5, back, 0.5)), rgb(104, 92, 78))
    u = -0.48
    while u < back - 0.08:
        step = world.uniform(0.05, 0.18)
        if world.chance(0.7):
            end = min(u + step, back - 0.01)
            load = vary(world.rng, world.pick(palette.CONTAINER_COLOURS), 0.15)
            canvas.convex(pose.map(box(u, -0.42, end - 0.01, 0.42)), load)
            canvas.convex(pose.map(box(u, 0.2, end - 0.01, 0.42)), shade(load, 0.8))
        u += step


def _tipper_body(world: World, pose: Pose, back: float, cargo: Colour) -> None:
    canvas = world.canvas
    canvas.convex(pose.map(box(-0.5, -0.5, back, 0.5)), shade(cargo, 0.7))
    filling = world.pick((rgb(134, 118, 92), rgb(98, 94, 90), rgb(70, 58, 50), shade(cargo, 0.4)))
    canvas.convex(pose.map(box(-0.48, -0.4, back - 0.02, 0.4)), filling)
    canvas.convex(pose.map(box(-0.4, -0.2, back - 0.1, 0.24)), shade(filling, 1.16))


def queue_along(site: Site, path: Points, offset: float, gap: float, trucks: float, forward: bool = True) -> None:
    """Put traffic on one lane of a road.

    Args:
        site (Site): Site of the path.
        path (np.ndarray): Centre line (N, 2) in metres.
        offset (float): Lane's distance to the right of the centre line in metres.
        gap (float): Mean free distance between vehicles in metres.
        trucks (float): Share of trucks.
        forward (bool): Whether traffic runs along the path.
    """
    world = site.world
    step = np.diff(path, axis=0)
    lengths = np.sqrt((step**2).sum(axis=1))
    ends = np.cumsum(lengths)
    at = world.uniform(0, gap)
    while at < ends[-1]:
        k = int(np.searchsorted(ends, at))
        u = step[k] / lengths[k]
        spot = path[k] + u * (at - (ends[k] - lengths[k])) + np.array([-u[1], u[0]]) * offset
        heading = math.atan2(u[1], u[0]) + (0 if forward else math.pi) + world.uniform(-0.02, 0.02)
        add = add_truck if world.chance(trucks) else add_car
        add(site, float(spot[0]), float(spot[1] + world.uniform(-0.25, 0.25)), heading)
        at += (5.6 if gap < 15 and not trucks > 0.02 else 9) + gap * world.uniform(0.1, 1.9)
