"""Blocks of industry: tank farms, plants, container yards, glasshouses, water works."""

from __future__ import annotations

import math

import numpy as np

from ds2d2_yolo.scenes.drawing.canvas import strip
from ds2d2_yolo.scenes.drawing.geometry import box
from ds2d2_yolo.scenes.drawing.palette import CONTAINER_COLOURS, Colour, mix, rgb, shade, vary
from ds2d2_yolo.scenes.objects.buildings import container_stack, crate, hall
from ds2d2_yolo.scenes.objects.facilities import TANK_COLOURS, add_tank
from ds2d2_yolo.scenes.objects.roads import straight, surface
from ds2d2_yolo.scenes.objects.vegetation import Nursery, green, scatter
from ds2d2_yolo.scenes.objects.vehicles import add_truck
from ds2d2_yolo.scenes.places.zones import paved, split, yard_clutter
from ds2d2_yolo.scenes.site import Site
from ds2d2_yolo.scenes.world import BUILT, OBJECT, PAVED


def tank_farm(site: Site, nursery: Nursery) -> None:
    """Group tanks of like size in bunds, with pipe racks and service roads between the bunds."""
    world = site.world
    floors = world.pick((("gravel", "concrete"), ("soil", "gravel"), ("lawn", "gravel"), ("worn", "concrete")))
    world.canvas.textured([site.all()], world.texture(floors[1]))
    wall = rgb(168, 162, 150) if world.chance(0.5) else mix(world.biome.grass[1], rgb(150, 138, 112), 0.5)
    colour, floating = world.pick(TANK_COLOURS[:3] if world.chance(0.8) else TANK_COLOURS), world.chance(0.5)
    smallest = 7 * world.gsd
    for bund in split(site, 36, 95):
        if not bund.visible():
            continue
        surface(bund, straight(0, 1.5, bund.w, 1.5), 4.0, "worn", "gravel", 0.6)
        inner = bund.part(3, 7, bund.w - 2, bund.h - 2)
        if min(inner.w, inner.h) < 12 or world.chance(0.06):
            yard_clutter(inner, 4.0)
            continue
        _bund(inner, world.pick(floors), wall)
        limit = min(inner.w, inner.h) - 4
        diameter = min(limit, world.uniform(max(smallest, 8), 46))
        if diameter >= smallest:
            paint = colour if world.chance(0.75) else world.pick(TANK_COLOURS)
            _tanks(inner, diameter, paint, floating if world.chance(0.8) else not floating)
        _pipes(bund)
    scatter(site, nursery, int(site.w * site.h / 2500), 1.5, 3.0)


def _bund(site: Site, floor: str, wall: Colour) -> None:
    """Draw the earth or concrete wall around a group of tanks, and the basin's floor with its stains."""
    world = site.world
    world.canvas.textured([site.all()], world.texture(floor))
    tone = vary(world.rng, rgb(110, 104, 92), 0.4)
    world.canvas.glaze([site.all()], tone, world.uniform(0.0, 0.4), world.rough_large)
    ring = site.all()
    ring = np.concatenate([ring, ring[:1]])
    thick = max(0.9, world.uniform(0.6, 2.2) / world.gsd)
    world.canvas.stroke(ring + world.shadow * 1.5, thick, shade(wall, 0.45))
    world.canvas.stroke(ring, thick, wall)
    world.take(site.all(), PAVED)


def _tanks(site: Site, diameter: float, colour: Colour, floating: bool) -> None:
    world = site.world
    pitch = diameter * world.uniform(1.18, 1.5) + 1
    columns, rows = max(1, int((site.w - 2) / pitch)), max(1, int((site.h - 2) / pitch))
    offset_x, offset_y = (site.w - columns * pitch) / 2, (site.h - rows * pitch) / 2
    missing = world.uniform(0, 0.25)
    for i in range(columns):
        for j in range(rows):
            if not world.chance(missing):
                jitter = world.uniform(-0.02, 0.02) * pitch
                x, y = offset_x + (i + 0.5) * pitch + jitter, offset_y + (j + 0.5) * pitch
                add_tank(site, x, y, diameter * world.uniform(0.94, 1.0), colour, floating)


def _pipes(site: Site) -> None:
    """Run a pipe rack along a side, its pipes bright and its shadow stripes dark."""
    world = site.world
    y = site.h - 1.2
    for k in range(int(world.rng.integers(3, 7))):
        pipe = straight(0, y - 0.6 * k, site.w, y - 0.6 * k)
        tone = vary(world.rng, world.pick((rgb(186, 184, 178), rgb(150, 146, 138), rgb(140, 100, 80))), 0.15)
        world.canvas.stroke(site.px(pipe) + world.shadow * 1.0, 0.5, rgb(76, 72, 68))
        world.canvas.stroke(site.px(pipe), max(0.4, 0.3 / world.gsd), tone)
    for x in np.arange(2, site.w, 6.0):
        world.canvas.convex(site.rect(float(x), y - 4, float(x) + 0.4, y + 0.6), rgb(120, 116, 110))


def plant(site: Site, nursery: Nursery) -> None:
    """Build a process plant: halls, columns, pipes, small vessels and a chimney."""
    world = site.world
    paved(site, world.pick(("concrete", "gravel", "worn")))
    for part in split(site, 24, 52):
        if world.chance(0.4):
            hall(part, part.w / 2, part.h / 2, part.w * 0.8, part.h * 0.78, 0.0, world.uniform(7, 20))
            continue
        _pipes(part)
        _process_unit(part)
        if world.chance(0.4):
            size = max(7.5 * world.gsd, world.uniform(6, 11))
            colour = world.pick(TANK_COLOURS)
            for k in range(int(world.rng.integers(2, 6))):
                add_tank(part, size * 0.7 + k * size * 1.25, part.h * 0.4, size, colour, False)
        yard_clutter(part, 4.0)


def _process_unit(site: Site) -> None:
    """Build one unit: lines of like vessels, exchangers and frames along the pipe rack."""
    world, y = site.world, 3.0
    while y < site.h - 4:
        tone = vary(world.rng, world.pick((rgb(164, 162, 156), rgb(132, 130, 126), rgb(150, 128, 108))), 0.15)
        long, wide, high = world.uniform(1.5, 7), world.uniform(1.2, 3.0), world.uniform(1.5, 9)
        gap, x = world.uniform(0.6, 4.0), world.uniform(1.5, 8)
        around = world.chance(0.35)
        while x + long < site.w - 1:
            if world.chance(0.8):
                if around:
                    centre = site.at(x + wide / 2, y + wide / 2)
                    world.cast_round(centre, wide / 2 / world.gsd, high)
                    disc = (centre, wide / 2 / world.gsd)
                    world.low.append(lambda d=disc, t=tone: world.canvas.disc(d[0], d[1], t))  # type: ignore[misc]
                    world.take(centre + box(-1, -1, 1, 1) * (wide / 2 / world.gsd), BUILT)
                else:
                    crate(site, x + long / 2, y + wide / 2, long, wide, 0.0, high, tone)
            x += (wide if around else long) + gap
        y += wide + world.uniform(2.0, 9.0)


def railway(site: Site) -> None:
    """Lay tracks along the site's x axis, some with strings of wagons: long boxes like trucks."""
    world = site.world
    world.canvas.textured([site.all()], world.texture("gravel"))
    world.canvas.glaze([site.all()], rgb(84, 74, 66), 0.4, world.rough_large)
    world.take(site.all(), PAVED)
    for y in np.arange(2.5, site.h - 1.5, 4.6):
        sleepers = site.rect(0, float(y) - 1.3, site.w, float(y) + 1.3)
        world.canvas.glaze([sleepers], rgb(104, 94, 84), 0.5)
        for rail in (-0.72, 0.72):
            world.canvas.stroke(site.px(straight(0, y + rail, site.w, y + rail)), 0.5, rgb(150, 142, 134))
        if not world.chance(0.6):
            continue
        x, end = world.uniform(0, site.w * 0.4), site.w * world.uniform(0.6, 1.0)
        tone, mixed = vary(world.rng, rgb(112, 84, 68), 0.3), world.chance(0.5)
        while x < end:
            if mixed and world.chance(0.5):
                tone = vary(world.rng, world.pick(CONTAINER_COLOURS), 0.2)
            crate(site, x + 7, float(y), 13.6, 2.8, 0.0, 3.4, tone)
            x += 14.6


def solar_farm(site: Site, nursery: Nursery) -> None:
    """Set rows of solar panels where nothing stands."""
    world = site.world
    panel = vary(world.rng, rgb(44, 54, 76), 0.2)
    step, deep = world.uniform(5.5, 9), world.uniform(2.4, 4.2)
    for y in np.arange(3, site.h - 5, step):
        for x in np.arange(3, site.w - 22, 22.0):
            if world.chance(0.95):
                table = site.rect(float(x), float(y), float(x) + 20, float(y) + deep)
                if not world.is_free(table, OBJECT | BUILT | PAVED):
                    continue
                world.take(table, BUILT)
                world.cast(table, 1.6)
                world.low.append(lambda t=table: world.canvas.convex(t, panel))  # type: ignore[misc]


def container_yard(site: Site, nursery: Nursery) -> None:
    """Stack containers in blocks with lanes in which trucks wait."""
    world = site.world
    paved(site, world.pick(("asphalt", "concrete", "worn")))
    x = 2.0
    while x + 26 < site.w:
        wide = min(site.w - x - 1, world.uniform(27, 64))
        y = 2.0
        while y + 8 < site.h:
            deep = min(site.h - y - 1, world.uniform(8, 18))
            block = site.part(x, y, x + wide, y + deep)
            if world.chance(0.85) and block.visible():
                container_stack(block)
            y += deep + world.uniform(4, 9)
        for _ in range(int(site.h / 26)):
            heading = world.pick((1, -1)) * math.pi / 2
            add_truck(site, x + wide + 3.5, world.uniform(9, max(9.1, site.h - 9)), heading, trailer=True)
        x += wide + 7


def glasshouses(site: Site, nursery: Nursery) -> None:
    """Build rows of glasshouses or tunnels: bright bands."""
    world = site.world
    wide, y = world.uniform(6, 11), 2.0
    while y + wide < site.h:
        if world.chance(0.88) and world.is_free(site.rect(2, y, site.w - 2, y + wide), OBJECT | BUILT | PAVED):
            pane = vary(world.rng, rgb(196, 204, 204), 0.08)
            around = site.rect(2, y, site.w - 2, y + wide)
            world.take(around, BUILT)
            world.cast(around, 3.0)
            world.canvas.convex(around, pane)
            world.canvas.convex(site.rect(2, y, site.w - 2, y + wide * 0.48), shade(pane, 0.88))
            for x in np.arange(4, site.w - 3, 4.0):
                world.canvas.convex(site.rect(float(x), y, float(x) + 0.25, y + wide), shade(pane, 0.8))
        y += wide + world.uniform(0.5, 3.0)


def water_works(site: Site, nursery: Nursery) -> None:
    """Dig round clarifiers and oblong basins: round like tanks, but sunk and full of water."""
    world = site.world
    green(site)
    for part in split(site, 24, 50):
        if world.chance(0.4):
            basin = part.part(4, 4, part.w - 4, part.h - 4)
            world.canvas.convex(basin.all(), rgb(164, 160, 152))
            world.take(basin.all(), BUILT)
            for k in range(3):
                lane = basin.part(1, 1 + k * basin.h / 3, basin.w - 1, (k + 1) * basin.h / 3 - 0.5)
                world.canvas.convex(lane.all(), vary(world.rng, rgb(66, 72, 58), 0.2))
        else:
            centre, radius = part.at(part.w / 2, part.h / 2), (min(part.w, part.h) / 2 - 3) / world.gsd
            if not world.is_free(centre + box(-radius, -radius, radius, radius), OBJECT | BUILT) or radius < 4:
                continue
            world.take(centre + box(-radius, -radius, radius, radius), BUILT)
            world.canvas.disc(centre, radius, rgb(170, 166, 158))
            world.canvas.disc(centre, radius * 0.9, vary(world.rng, rgb(58, 66, 56), 0.2))
            world.canvas.disc(centre, radius * 0.12, rgb(150, 148, 140))
            t = world.uniform(0, 2 * math.pi)
            arm = np.stack([centre, centre + np.array([math.cos(t), math.sin(t)]) * radius])
            world.canvas.stroke(arm, 0.8, rgb(186, 182, 172))
    path = straight(0, site.h / 2, site.w, site.h / 2)
    for quad in strip(path, 3.0):
        world.canvas.textured([site.px(quad)], world.texture("worn"))
