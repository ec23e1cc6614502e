"""Aircraft from above: airliners, turboprops, light aircraft and fighters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ds2d2_yolo.scenes.drawing.canvas import Points
from ds2d2_yolo.scenes.drawing.geometry import Pose, box
from ds2d2_yolo.scenes.drawing.palette import Colour, mix, rgb, shade, vary
from ds2d2_yolo.scenes.objects.vehicles import sunny_side
from ds2d2_yolo.scenes.site import Site
from ds2d2_yolo.scenes.world import AIRCRAFT, World


@dataclass(frozen=True)
class Airframe:
    """Shape of a type in unit coordinates (nose at +0.5, wing tips at -0.5 and +0.5 across).

    Attributes:
        length (tuple[float, float]): Range of lengths in metres.
        aspect (float): Span over length.
        body (float): Fuselage width over length.
        wing (Points): Right wing's root leading edge, tip leading edge, tip trailing edge, root trailing edge.
        tail (Points): Right tailplane likewise.
        engines (tuple[tuple[float, float, float], ...]): Engines on the right: along, across, half length.
        height (float): Height of the wing in metres, for the shadow.
    """

    length: tuple[float, float]
    aspect: float
    body: float
    wing: Points
    tail: Points
    engines: tuple[tuple[float, float, float], ...]
    height: float


def _quad(*corners: tuple[float, float]) -> Points:
    return np.array(corners, np.float64)


JET_TAIL = _quad((-0.38, 0.0), (-0.455, 0.18), (-0.495, 0.18), (-0.46, 0.0))
AIRFRAMES: dict[str, Airframe] = {
    "narrow": Airframe(
        (33.0, 44.0),
        0.93,
        0.1,
        _quad((0.13, 0.03), (-0.12, 0.5), (-0.155, 0.5), (-0.1, 0.03)),
        JET_TAIL,
        ((0.09, 0.17, 0.055),),
        4.0,
    ),
    "wide": Airframe(
        (58.0, 72.0),
        0.94,
        0.092,
        _quad((0.15, 0.03), (-0.16, 0.5), (-0.19, 0.5), (-0.1, 0.03)),
        JET_TAIL,
        ((0.1, 0.16, 0.045),),
        6.0,
    ),
    "four": Airframe(
        (63.0, 74.0),
        0.92,
        0.09,
        _quad((0.17, 0.03), (-0.16, 0.5), (-0.19, 0.5), (-0.1, 0.03)),
        JET_TAIL,
        ((0.1, 0.16, 0.035), (0.0, 0.31, 0.035)),
        6.0,
    ),
    "business": Airframe(
        (15.0, 27.0),
        0.95,
        0.1,
        _quad((0.05, 0.03), (-0.14, 0.5), (-0.18, 0.5), (-0.15, 0.03)),
        _quad((-0.42, 0.0), (-0.47, 0.2), (-0.5, 0.2), (-0.49, 0.0)),
        ((-0.24, 0.085, 0.07),),
        2.5,
    ),
    "turboprop": Airframe(
        (22.0, 30.0),
        1.08,
        0.1,
        _quad((0.08, 0.03), (0.05, 0.5), (0.0, 0.5), (-0.04, 0.03)),
        _quad((-0.42, 0.0), (-0.44, 0.16), (-0.49, 0.16), (-0.5, 0.0)),
        ((0.1, 0.16, 0.09),),
        3.5,
    ),
    "light": Airframe(
        (7.2, 9.8),
        1.3,
        0.125,
        _quad((0.2, 0.0), (0.18, 0.5), (0.03, 0.5), (0.0, 0.0)),
        _quad((-0.38, 0.0), (-0.39, 0.16), (-0.48, 0.16), (-0.5, 0.0)),
        (),
        2.0,
    ),
    "fighter": Airframe(
        (14.5, 19.5),
        0.66,
        0.13,
        _quad((0.14, 0.04), (-0.26, 0.5), (-0.34, 0.5), (-0.38, 0.04)),
        _quad((-0.34, 0.06), (-0.44, 0.34), (-0.5, 0.34), (-0.47, 0.06)),
        (),
        2.0,
    ),
}
MIRROR = np.array([1.0, -1.0])
LIVERIES = (rgb(30, 58, 118), rgb(170, 34, 38), rgb(216, 120, 40), rgb(28, 96, 84), rgb(92, 40, 96), rgb(214, 214, 210))


def add_aircraft(site: Site, x: float, y: float, heading: float, kind: str) -> Pose | None:
    """Put an aircraft on the site; None where it does not fit."""
    world, frame = site.world, AIRFRAMES[kind]
    length = world.uniform(*frame.length)
    pose = site.pose(x, y, length, length * frame.aspect, heading)
    if not world.add(AIRCRAFT, pose):
        return None
    colour = vary(world.rng, rgb(222, 223, 223) if world.chance(0.85) else rgb(176, 180, 186), 0.05)
    if kind == "fighter":
        colour = vary(world.rng, world.pick((rgb(128, 134, 138), rgb(110, 114, 112), rgb(150, 142, 122))), 0.08)
    livery = vary(world.rng, world.pick(LIVERIES), 0.1)
    for outline in _silhouette(frame, pose):
        world.cast(outline, frame.height * 0.8)
        world.cast(outline + world.shadow * frame.height * 0.7, frame.height * 0.3)
    world.low.append(lambda: _draw(world, pose.drawn, frame, colour, livery))
    return pose


def _fuselage(pose: Pose, body: float, slim: float = 1.0) -> Points:
    """Return the fuselage as a convex outline, round at the nose and tapering to the tail."""
    half = 0.5 * body * slim * pose.length / pose.width
    u = np.array([0.5, 0.488, 0.46, 0.40, -0.2, -0.36, -0.46, -0.5])
    v = np.array([0.12, 0.5, 0.8, 1.0, 1.0, 0.75, 0.36, 0.14]) * half
    side = np.stack([u, v], axis=1)
    return pose.map(np.concatenate([side, side[::-1] * MIRROR]))


def _silhouette(frame: Airframe, pose: Pose) -> list[Points]:
    """Return the outlines of wings, tailplane and fuselage in pixels."""
    surfaces = [part * side for part in (frame.wing, frame.tail) for side in (np.ones(2), MIRROR)]
    return [pose.map(part) for part in surfaces] + [_fuselage(pose, frame.body)]


def _draw(world: World, pose: Pose, frame: Airframe, colour: Colour, livery: Colour) -> None:
    """Draw engines, wings, tail, then the fuselage with its lit side."""
    canvas, lit = world.canvas, sunny_side(world, pose)
    wing_tone = mix(colour, rgb(150, 154, 160), 0.35)
    for side in (1.0, -1.0):
        flip, bright = np.array([1.0, side]), 1.04 if side == lit else 0.93
        below = frame.height < 3 and frame.engines
        if not below:
            _engines(pose, frame, world, flip, colour, livery)
        canvas.convex(pose.map(frame.tail * flip), shade(wing_tone, bright))
        canvas.convex(pose.map(frame.wing * flip), shade(wing_tone, bright))
        flap = frame.wing[[2, 3]] * flip
        lead = flap + (frame.wing[[1, 0]] * flip - flap) * 0.22
        canvas.convex(pose.map(np.concatenate([flap, lead[::-1]])), shade(wing_tone, bright * 0.86))
        if below:
            _engines(pose, frame, world, flip, colour, livery)
    canvas.convex(_fuselage(pose, frame.body), shade(colour, 0.8))
    shift = pose.across * (lit * 0.12 * frame.body * pose.length / pose.width)
    canvas.convex(
        _fuselage(pose, frame.body, 0.66) * 0.992 + pose.centre * 0.008 + shift, mix(colour, rgb(255, 255, 252), 0.3)
    )
    half = 0.5 * frame.body * pose.length / pose.width
    canvas.convex(pose.map(box(0.455, -half * 0.6, 0.475, half * 0.6)), rgb(42, 46, 54))
    fin = np.array([[-0.34, 0.0], [-0.44, half * 0.28], [-0.49, 0.0], [-0.44, -half * 0.28]])
    canvas.convex(pose.map(fin), livery)
    canvas.stroke(
        pose.map(np.array([[-0.36, 0.0], [-0.49, 0.0]])) + world.shadow * frame.height * 0.2, 0.6, shade(colour, 0.55)
    )
    if frame.height <= 2:
        canvas.convex(pose.map(box(0.2, -half * 0.55, 0.32, half * 0.55)), rgb(44, 50, 58))


def _engines(pose: Pose, frame: Airframe, world: World, flip: Points, colour: Colour, livery: Colour) -> None:
    for u, v, half in frame.engines:
        wide = half * 0.36 * pose.length / pose.width
        nacelle = np.array(
            [[u + half, v - wide], [u + half, v + wide], [u - half, v + wide * 0.7], [u - half, v - wide * 0.7]]
        )
        world.canvas.convex(pose.map(nacelle * flip), mix(colour, livery, 0.3))
        lip = box(u + half * 0.78, v - wide, u + half, v + wide)
        world.canvas.convex(pose.map(lip * flip), rgb(66, 68, 72))
