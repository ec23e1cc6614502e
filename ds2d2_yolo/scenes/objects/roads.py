"""Roads, their markings and their traffic."""

from __future__ import annotations

import math

import numpy as np

from ds2d2_yolo.scenes.drawing import palette
from ds2d2_yolo.scenes.drawing.canvas import Points, strip
from ds2d2_yolo.scenes.drawing.geometry import box
from ds2d2_yolo.scenes.drawing.palette import mix, rgb
from ds2d2_yolo.scenes.objects.vehicles import queue_along
from ds2d2_yolo.scenes.site import Site
from ds2d2_yolo.scenes.world import PAVED, World


def offset(path: Points, distance: float) -> Points:
    """Return a path (N, 2) shifted to its right by a distance."""
    step = np.diff(path, axis=0)
    step = step / np.sqrt((step**2).sum(axis=1, keepdims=True))
    tangent = np.vstack([step[:1], step[:-1] + step[1:], step[-1:]])
    tangent = tangent / np.sqrt((tangent**2).sum(axis=1, keepdims=True))
    return path + np.stack([-tangent[:, 1], tangent[:, 0]], axis=1) * distance


def curve(points: list[tuple[float, float]], pieces: int = 12) -> Points:
    """Return a smooth path through points (Catmull-Rom)."""
    p = np.array([points[0], *points, points[-1]], np.float64)
    t = np.linspace(0, 1, pieces, endpoint=False)[:, None]
    path = []
    for a, b, c, d in zip(p[:-3], p[1:-2], p[2:-1], p[3:], strict=True):
        path.append(0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3))
    return np.concatenate([*path, p[-1:]])


def straight(x0: float, y0: float, x1: float, y1: float) -> Points:
    """Return a straight path cut into short pieces."""
    count = max(2, int(math.hypot(x1 - x0, y1 - y0) / 40) + 1)
    return np.stack([np.linspace(x0, x1, count), np.linspace(y0, y1, count)], axis=1)


def surface(
    site: Site, path: Points, width: float, texture: str = "asphalt", verge: str = "gravel", edge: float = 1.0
) -> None:
    """Paint the road bed with its verge or kerb, and forbid trees on it."""
    world = site.world
    around = [site.px(quad) for quad in strip(path, width + 2 * edge)]
    if edge:
        world.canvas.textured(around, world.texture(verge))
    world.canvas.textured([site.px(quad) for quad in strip(path, width)], world.texture(texture))
    for quad in around:
        world.take(quad, PAVED)


def wear(site: Site, path: Points, lane: float) -> None:
    """Show wheel tracks, where tyres polish the asphalt, and the darker oil stripe between them."""
    world = site.world
    for wheel in (-0.85, 0.85):
        track = strip(offset(path, lane + wheel), 0.75)
        world.canvas.glaze([site.px(q) for q in track], rgb(142, 138, 132), 0.16)
    oil = strip(offset(path, lane), 0.6)
    world.canvas.glaze([site.px(q) for q in oil], rgb(48, 46, 44), 0.16)


def line(
    site: Site, path: Points, dash: tuple[float, float] | None, paint: palette.Colour, width: float = 0.16
) -> None:
    """Paint a line along a path, dashed (mark, gap in metres) or solid."""
    world = site.world
    thick = max(0.5, width / world.gsd)
    if dash is None:
        world.canvas.stroke(site.px(path), thick, paint)
        return
    step = np.diff(path, axis=0)
    lengths = np.sqrt((step**2).sum(axis=1))
    ends = np.concatenate([[0], np.cumsum(lengths)])
    at = 0.0
    while at + dash[0] < ends[-1]:
        x = np.interp([at, at + dash[0]], ends, path[:, 0])
        y = np.interp([at, at + dash[0]], ends, path[:, 1])
        ends_px = site.px(np.stack([x, y], axis=1))
        if world.near(ends_px[0], 20):
            world.canvas.stroke(ends_px, thick, paint)
        at += dash[0] + dash[1]


def paint_tone(world: World) -> palette.Colour:
    """Return the scene's faded white road paint."""
    return mix(palette.PAINT_WHITE, rgb(110, 108, 104), world.uniform(0.05, 0.4))


def street(
    site: Site, path: Points, lanes: int = 2, busy: float = 30.0, trucks: float = 0.1, kerb: str = "concrete"
) -> None:
    """Build a street with two ways of traffic.

    Args:
        site (Site): Site of the path.
        path (np.ndarray): Centre line (N, 2) in metres.
        lanes (int): Lanes of both ways together, even.
        busy (float): Mean distance between vehicles of a lane in metres; 0 leaves it empty.
        trucks (float): Share of trucks.
        kerb (str): Texture of the strip along the street.
    """
    world, half = site.world, lanes // 2
    wide = 3.3
    surface(site, path, lanes * wide + 0.8, verge=kerb, edge=1.6 if kerb == "concrete" else 1.0)
    paint = paint_tone(world)
    centre = mix(palette.PAINT_YELLOW, rgb(112, 110, 106), 0.3) if world.chance(0.35) else paint
    for k in range(half):
        for side in (-1, 1):
            wear(site, path, side * (k + 0.5) * wide)
            if k:
                line(site, offset(path, side * k * wide), (3.0, 6.0), paint)
    line(site, path, None if lanes > 2 else (3.0, 5.0), centre)
    for side in (-1, 1):
        line(site, offset(path, side * half * wide), None, paint)
    if busy:
        for k in range(half):
            gap = busy * world.uniform(0.6, 1.6)
            queue_along(site, path, (k + 0.5) * wide, gap, trucks * (1.4 if k else 0.8), True)
            queue_along(site, path, -(k + 0.5) * wide, gap, trucks, False)


def kerbside(site: Site, path: Points, lanes: int) -> None:
    """Park cars along both kerbs of a street, half on the verge."""
    for side in (-1, 1):
        queue_along(site, path, side * (lanes * 1.65 + 1.3), site.world.uniform(0.5, 14), 0.01, side > 0)


def motorway(site: Site, path: Points, lanes: int, busy: float, trucks: float) -> None:
    """Build a dual carriageway with hard shoulders, a planted or walled median and traffic."""
    world, wide = site.world, 3.7
    median = world.uniform(2.5, 6.0)
    middle = median / 2 + lanes * wide / 2 + 0.8
    surface(site, path, 2 * middle + lanes * wide + 8, "soil", "grass", 2.0)
    world.canvas.textured([site.px(q) for q in strip(path, 2 * middle + lanes * wide + 5)], world.texture("lawn"))
    paint = paint_tone(world)
    for side in (-1, 1):
        way = offset(path, side * middle)
        surface(site, way, lanes * wide + 4.2, "asphalt", "gravel", 0.6)
        for k in range(lanes):
            lane = (k + 0.5 - lanes / 2) * wide * side
            wear(site, way, lane)
            if k:
                line(site, offset(way, (k - lanes / 2) * wide), (6.0, 9.0), paint, 0.2)
            slow = k == lanes - 1
            queue_along(site, way, lane, busy * (0.7 if slow else 1.5), trucks if slow else trucks * 0.2, side > 0)
        for edge in (-1, 1):
            line(site, offset(way, edge * lanes * wide / 2), None, paint, 0.24)
    barrier = offset(path, 0.0)
    world.canvas.stroke(site.px(barrier) + world.shadow * 0.8, max(0.6, 0.5 / world.gsd), rgb(70, 68, 66))
    world.canvas.stroke(site.px(barrier), max(0.5, 0.4 / world.gsd), rgb(176, 174, 168))


def crossing(site: Site, x: float, y: float, width_x: float, width_y: float) -> None:
    """Paint over the lines where two streets cross, and add zebra crossings; widths of the streets in metres."""
    world = site.world
    hx, hy = width_y / 2, width_x / 2  # the street along x is width_x wide in y
    if not world.near(site.at(x, y), 40 / world.gsd):
        return
    square = site.rect(x - hx - 1, y - hy - 1, x + hx + 1, y + hy + 1)
    world.canvas.textured([square], world.texture("asphalt"))
    world.canvas.glaze([square], rgb(146, 142, 136), 0.2, world.fine_large)
    paint = paint_tone(world)
    for side in (-1, 1):
        if world.chance(0.7) and world.gsd < 0.6:
            for k in np.arange(-hx + 0.6, hx - 0.6, 1.1):
                at = y + side * (hy + 3.0)
                world.canvas.convex(site.px(box(x + k, at - 1.4, x + k + 0.55, at + 1.4)), paint)
            for k in np.arange(-hy + 0.6, hy - 0.6, 1.1):
                at = x + side * (hx + 3.0)
                world.canvas.convex(site.px(box(at - 1.4, y + k, at + 1.4, y + k + 0.55)), paint)
