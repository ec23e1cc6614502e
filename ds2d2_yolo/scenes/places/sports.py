"""Sports grounds: banks of courts, football pitches, running tracks and baseball diamonds."""

from __future__ import annotations

import math

import numpy as np

from ds2d2_yolo.scenes.drawing.canvas import Points
from ds2d2_yolo.scenes.drawing.palette import mix, rgb, vary
from ds2d2_yolo.scenes.objects.buildings import crate, hall
from ds2d2_yolo.scenes.objects.facilities import COURT_SCHEMES, FOOTBALL, SPORTS, add_court
from ds2d2_yolo.scenes.objects.vegetation import Nursery, green, row, scatter
from ds2d2_yolo.scenes.site import Site
from ds2d2_yolo.scenes.world import PAVED


def sports_ground(site: Site, nursery: Nursery) -> None:
    """Lay out banks of courts, perhaps a football pitch, on a green with trees and a clubhouse."""
    world = site.world
    if site.w < site.h:
        site = site.turned()
    green(site)
    x = 6.0
    if site.w > 150 and site.h > 76 and world.chance(0.7):
        x = _pitch(site)
    elif site.w > 100 and site.h > 70 and world.chance(0.25):
        _diamond(site, 50, site.h * 0.5 + 28)
        x = 96.0
    while x < site.w - 20:
        width = min(site.w - x - 4, world.uniform(40, 84))
        if width < 22:
            break
        _bank(site.part(x, 4, x + width, site.h - 4))
        x += width + world.uniform(4, 9)
    if world.chance(0.6):
        hall(site, site.w * 0.5, site.h - 5, world.uniform(12, 26), 8.0, 0.0, 4.5)
    row(site, nursery, (2, 2), (site.w - 2, 2), 8)
    scatter(site, nursery, int(site.w * site.h / 320))


def _bank(site: Site) -> None:
    """Lay a fenced grid of courts of one sport."""
    world = site.world
    sport = world.weighted((("tennis", 6.0), ("basketball", 3.0), ("handball", 1.6)))
    (length, width), scheme = SPORTS[sport][0], world.pick(COURT_SCHEMES)
    scheme = (vary(world.rng, scheme[0], 0.12), vary(world.rng, scheme[1], 0.12))
    step_x, step_y = length + world.uniform(8, 13), width + world.uniform(4, 7.5)
    columns, rows = int(site.w // step_x), int(site.h // step_y)
    if not columns or not rows:
        return
    columns, rows = min(columns, 4), min(rows, int(world.rng.integers(3, 8)))
    x0, y0 = world.uniform(0, site.w - columns * step_x), world.uniform(0, site.h - rows * step_y)
    around = site.rect(x0, y0, x0 + columns * step_x, y0 + rows * step_y)
    spots = [(x0 + (i + 0.5) * step_x, y0 + (j + 0.5) * step_y) for i in range(columns) for j in range(rows)]
    placed = [add_court(site, x, y, sport, scheme) for x, y in spots]
    if not any(placed):
        return
    world.canvas.glaze([around], scheme[1], 0.9)
    world.take(around, PAVED)
    fence = np.concatenate([around, around[:1]])
    world.canvas.stroke(fence + world.shadow * 2.0, 0.5, rgb(60, 62, 60))
    if world.chance(0.5):
        stand = world.uniform(0, columns * step_x - 8)
        crate(site, x0 + stand + 4, y0 + 0.8, 7.0, 1.2, 0.0, 1.2, rgb(150, 148, 142))


def _pitch(site: Site) -> float:
    """Lay a football pitch, within a running track where there is room; return where it ends."""
    world, scale = site.world, site.world.uniform(0.86, 1.0)
    turn = 0.0 if world.chance(0.5) else math.pi
    middle = 63.0
    if site.w > 190 and site.h > 96 and world.chance(0.6):
        middle, scale = 95.0, 0.9
        tone = vary(world.rng, world.pick((rgb(142, 78, 62), rgb(150, 92, 76), rgb(72, 98, 128))), 0.12)
        ring = np.array([middle, site.h / 2])
        world.canvas.glaze([site.px(_oval(46.5) + ring)], tone, 0.9)
        for lane in range(1, 8):
            path = site.px(_oval(46.5 - 1.2 * lane) + ring)
            world.canvas.stroke(path, 0.5, mix(tone, rgb(220, 214, 206), 0.45))
        world.canvas.textured([site.px(_oval(36.8) + ring)], world.texture("lawn"))
        world.take(site.px(_oval(46.5) + ring), PAVED)
    add_court(site, middle, site.h / 2, "football", COURT_SCHEMES[0], turn, scale)
    return middle + (98 if middle > 90 else FOOTBALL[0] * scale / 2 + 10)


def _oval(radius: float) -> Points:
    """Return a closed stadium shape about the origin, its ends half circles of a radius in metres."""
    t = np.linspace(-math.pi / 2, math.pi / 2, 17)
    right = np.stack([42.2 + radius * np.cos(t), radius * np.sin(t)], axis=1)
    ring = np.concatenate([right, -right])
    return np.concatenate([ring, ring[:1]])


def _diamond(site: Site, x: float, y: float) -> None:
    """Lay a baseball diamond: clutter that is no court by its label."""
    world = site.world
    dirt = vary(world.rng, rgb(168, 128, 96), 0.1)
    t = np.linspace(-0.75 * math.pi, -0.25 * math.pi, 15)
    fan = np.concatenate([[[0.0, 3.0]], np.stack([29 * np.cos(t), 29 * np.sin(t)], axis=1)]) + np.array([x, y])
    world.canvas.glaze([site.px(fan)], dirt, 0.9)
    infield = np.array([[0, -3], [15, -18], [0, -33], [-15, -18]]) * 0.8 + np.array([x, y])
    world.canvas.textured([site.px(infield)], world.texture("lawn"))
    world.canvas.disc(site.at(x, y - 15), 2.7 / world.gsd, dirt)
    for side in (-1, 1):
        foul = np.array([[x, y], [x + side * 46, y - 46]])
        world.canvas.stroke(site.px(foul), 0.5, rgb(220, 216, 208))
