"""Blocks of a town, each drawn on a rectangular site: car parks, houses, shops, sports grounds, parks."""

from __future__ import annotations

import math

import numpy as np

from ds2d2_yolo.scenes.drawing.canvas import strip
from ds2d2_yolo.scenes.drawing.geometry import box
from ds2d2_yolo.scenes.drawing.palette import mix, rgb, shade, vary
from ds2d2_yolo.scenes.objects.buildings import crate, hall, house, pool, trampoline
from ds2d2_yolo.scenes.objects.roads import curve, line, paint_tone, straight, surface
from ds2d2_yolo.scenes.objects.vegetation import Nursery, green, grove, row, scatter
from ds2d2_yolo.scenes.objects.vehicles import add_car, add_truck
from ds2d2_yolo.scenes.places.sports import sports_ground
from ds2d2_yolo.scenes.site import Site
from ds2d2_yolo.scenes.world import BUILT, OBJECT, PAVED

CAR_SCALE = 0.44  # metres per pixel above which a car is smaller than the smallest label


def paved(site: Site, texture: str = "asphalt") -> None:
    """Cover a site with asphalt or concrete, patched here and there, where no tree grows by itself."""
    world = site.world
    world.canvas.textured([site.all()], world.texture(texture))
    world.take(site.all(), PAVED)
    tone = rgb(58, 57, 56) if world.chance(0.5) else rgb(168, 163, 154)
    world.canvas.glaze([site.all()], tone, world.uniform(0.0, 0.35), world.rough_large)
    for _ in range(int(world.rng.integers(2, 7))):
        x, y = world.uniform(0, site.w), world.uniform(0, site.h)
        patch = site.rect(x, y, min(site.w, x + world.uniform(2, 26)), min(site.h, y + world.uniform(2, 14)))
        world.canvas.glaze(
            [patch], rgb(60, 60, 60) if world.chance(0.6) else rgb(160, 156, 148), world.uniform(0.1, 0.35)
        )


def car_park(site: Site, nursery: Nursery, fill: float | None = None) -> None:
    """Lay rows of stalls with aisles between them, and park cars in a share `fill` of them."""
    world = site.world
    if world.gsd > CAR_SCALE:  # cars would be too small to label: a depot or halls instead
        (truck_yard if world.chance(0.35) else offices)(site, nursery)
        return
    paved(site)
    fill = world.uniform(0.25, 0.98) if fill is None else fill
    stall, deep, aisle = world.uniform(2.4, 2.7), world.uniform(4.9, 5.3), world.uniform(5.6, 7.0)
    slant = world.weighted(((0.0, 5.0), (0.45, 1.0), (-0.45, 1.0)))
    paint = mix(paint_tone(world), rgb(110, 108, 104), world.uniform(0, 0.4))
    islands = world.chance(0.5)
    margin, y = 2.0, 2.0
    while y + deep < site.h - 1:
        for side in (-1, 1):
            if y + deep < site.h - 1:
                _stalls(site, y, (stall, deep, slant * side), side, fill * world.uniform(0.75, 1.1), paint, margin)
                y += deep
        if islands and world.chance(0.7):
            _island_trees(site, nursery, y - deep, margin)
        y += aisle
        for x in np.arange(12, site.w - 12, 24):
            if world.gsd < 0.3 and world.chance(0.5):
                _arrow(site, float(x), y - aisle / 2, paint)
    for _ in range(int(site.w * site.h / 900)):
        x, y = world.uniform(3, site.w - 3), world.uniform(3, site.h - 3)
        add_car(site, x, y, world.pick((0.0, math.pi)) + world.uniform(-0.2, 0.2))
        _oil(site, world.uniform(0, site.w), world.uniform(0, site.h))


def _oil(site: Site, x: float, y: float) -> None:
    spot = site.pose(x, y, site.world.uniform(0.8, 2.4), site.world.uniform(0.6, 1.4))
    site.world.canvas.glaze([spot.corners], rgb(40, 38, 38), 0.3)


def _arrow(site: Site, x: float, y: float, paint: tuple[int, int, int]) -> None:
    site.world.canvas.convex(site.rect(x - 1.2, y - 0.12, x + 0.8, y + 0.12), paint)
    site.world.canvas.convex(site.px(np.array([[x + 0.8, y - 0.45], [x + 1.8, y], [x + 0.8, y + 0.45]])), paint)


def _stalls(
    site: Site,
    y: float,
    shape: tuple[float, float, float],
    side: int,
    fill: float,
    paint: tuple[int, int, int],
    margin: float,
) -> None:
    """Draw one row of stalls with the cars that stand in it."""
    world, (stall, deep, slant) = site.world, shape
    lean = math.sin(slant) * deep
    pitch = stall / math.cos(slant)
    thick = max(0.4, 0.1 / world.gsd)
    for k in range(int((site.w - 2 * margin - abs(lean)) / pitch)):
        x = margin + max(0.0, -lean) + k * pitch
        if not world.near(site.at(x, y + deep / 2), 30):
            continue
        world.canvas.stroke(site.px(np.array([[x, y + 0.1], [x + lean, y + deep - 0.1]])), thick, paint)
        if world.chance(fill):
            nose = 1 if world.chance(0.75) else -1
            heading = math.pi / 2 * side * nose - slant
            middle = x + pitch / 2 + lean / 2 + world.uniform(-0.12, 0.12)
            add_car(site, middle, y + deep / 2 + world.uniform(-0.25, 0.25), heading + world.uniform(-0.035, 0.035))
    edge = y if side < 0 else y + deep
    if side > 0:
        world.canvas.stroke(site.px(np.array([[margin, y], [site.w - margin, y]])), thick, paint)
    elif world.chance(0.3):
        world.canvas.stroke(site.px(np.array([[margin, edge], [site.w - margin, edge]])), thick, paint)


def _island_trees(site: Site, nursery: Nursery, y: float, margin: float) -> None:
    world = site.world
    for x in np.arange(margin, site.w - margin, world.uniform(18, 34)):
        bed = site.rect(x - 1.1, y - 3.5, x + 1.1, y + 3.5)
        if world.is_free(bed, OBJECT):
            world.canvas.textured([bed], world.texture("lawn"))
            for dy in (-1.8, 1.8):
                nursery.plant(site.at(float(x), y + dy), world.uniform(1.2, 2.0), force=True)


def houses(site: Site, nursery: Nursery) -> None:
    """Build a residential block: houses along both long sides with drives, gardens, sheds and pools."""
    world = site.world
    if site.w < site.h:
        site = site.turned()
    green(site)
    plot, rows = world.uniform(14, 24), 2 if site.h > 46 else 1
    dense = world.uniform(0.3, 1.4)
    for j in range(rows):
        depth = site.h / rows
        y0 = j * depth
        outward = -1 if j == 0 else 1
        x = 1.0
        while x + plot * 0.8 < site.w:
            wide = plot * world.uniform(0.85, 1.25)
            _plot(site.part(x, y0, min(x + wide, site.w - 1), y0 + depth), nursery, outward, dense)
            x += wide


def _plot(site: Site, nursery: Nursery, outward: int, dense: float) -> None:
    """Build one house with its drive and garden; the street lies at y = 0 (outward -1) or y = h (+1)."""
    world = site.world
    if not site.visible() or site.w < 9 or site.h < 14:
        return
    front = 0.0 if outward < 0 else site.h
    inward = -outward
    setback = world.uniform(5, 8)
    deep, wide = world.uniform(8.5, 12.5), min(site.w - 3.5, world.uniform(10, 16))
    y = front + inward * (setback + deep / 2)
    tint = vary(world.rng, world.pick([*world.biome.grass, *world.biome.soil]), 0.2)
    world.canvas.glaze([site.all()], tint, world.uniform(0.0, 0.5))
    lane = world.uniform(1.5, max(1.6, site.w - 4.5))
    drive = site.rect(lane, min(front, front + inward * setback), lane + 3.4, max(front, front + inward * setback))
    world.canvas.textured([drive], world.texture(world.pick(("concrete", "worn", "gravel"))))
    world.take(drive, PAVED)
    if world.chance(0.94):
        house(site, site.w / 2, y, max(wide, deep), min(wide, deep), 0.0 if wide >= deep else math.pi / 2)
    if world.chance(0.6):
        add_car(site, lane + 1.7, front + inward * world.uniform(2.6, max(2.7, setback - 2.4)), math.pi / 2 * outward)
    back = front + inward * (setback + deep + 4)
    far = front + inward * (site.h - 2)
    for _ in range(int(world.rng.poisson(0.9))):
        x, yy = world.uniform(2, site.w - 2), world.uniform(min(back, far), max(back, far))
        shed = vary(world.rng, world.pick((rgb(120, 104, 86), rgb(160, 158, 152), rgb(96, 92, 90))), 0.15)
        crate(site, x, yy, world.uniform(2.4, 4.5), world.uniform(2, 3), world.pick((0.0, math.pi / 2)), 2.2, shed)
    middle = (back + far) / 2
    if world.chance(0.2):
        pool(site, world.uniform(6, max(6.1, site.w - 6)), middle, world.pick((0.0, math.pi / 2)))
    elif world.chance(0.15):
        trampoline(site, world.uniform(3, max(3.1, site.w - 3)), middle)
    scatter(site, nursery, int(world.rng.poisson(6 * dense)), 1.3, 4.2)
    if world.chance(0.5):
        hedge = straight(0.3, 0, 0.3, site.h)
        for quad in strip(hedge, 0.9):
            world.canvas.glaze([site.px(quad)], shade(world.biome.leaves[1], 0.9), 0.8)


def shops(site: Site, nursery: Nursery) -> None:
    """Build a large store with loading docks behind it and a car park before it."""
    world = site.world
    if site.w < site.h:
        site = site.turned()
    paved(site)
    deep = min(site.h * world.uniform(0.28, 0.42), 70)
    wide = site.w * world.uniform(0.6, 0.92)
    hall(site, site.w / 2, deep / 2 + 12, wide, deep, 0.0, world.uniform(7, 11))
    for x in np.arange(site.w / 2 - wide / 2 + 4, site.w / 2 + wide / 2 - 4, 4.4):
        if world.chance(0.35):
            add_truck(site, float(x), 3.0, math.pi / 2 * -1, trailer=False)
    for _ in range(4):
        tone = vary(world.rng, rgb(70, 96, 84), 0.3)
        crate(site, world.uniform(0, site.w), 10.4, 2.6, 1.6, 0.0, 1.5, tone)
    if site.h - deep - 20 > 18:
        car_park(site.part(2, deep + 20, site.w - 2, site.h - 1), nursery, world.uniform(0.5, 0.98))


def offices(site: Site, nursery: Nursery) -> None:
    """Build halls and offices of several heights with yards, trucks, crates and trees between them."""
    world = site.world
    paved(site, world.pick(("worn", "asphalt", "concrete")))
    for part in split(site, 34, 75):
        if world.gsd < CAR_SCALE and world.chance(0.24):
            car_park(part, nursery)
            continue
        gap = world.uniform(3, 7)
        if part.w > 3 * gap and part.h > 3 * gap:
            height = world.uniform(5, 18)
            hall(part, part.w / 2, part.h / 2, part.w - 2 * gap, part.h - 2 * gap, 0.0, height)
        yard_clutter(part, gap)
        row(part, nursery, (1.0, 0.8), (part.w - 1.0, 0.8), 7.0)


def yard_clutter(site: Site, gap: float) -> None:
    """Park trucks and cars, and leave crates and skips, along the edges of a yard."""
    world = site.world
    for _ in range(int((site.w + site.h) / 9)):
        along_x = world.chance(0.5)
        x = world.uniform(1, site.w - 1) if along_x else world.pick((gap / 2, site.w - gap / 2))
        y = world.pick((gap / 2, site.h - gap / 2)) if along_x else world.uniform(1, site.h - 1)
        heading = world.pick((0.0, math.pi)) + (0.0 if along_x else math.pi / 2)
        draw = world.uniform(0, 1)
        if draw < 0.3 and gap > 3:
            add_truck(site, x, y, heading)
        elif draw < 0.62:
            add_car(site, x, y, heading)
        else:
            tone = vary(
                world.rng, world.pick((rgb(60, 92, 80), rgb(140, 70, 50), rgb(124, 120, 112), rgb(64, 84, 120))), 0.2
            )
            crate(site, x, y, world.uniform(1.8, 6.2), world.uniform(1.4, 2.4), heading, world.uniform(1.2, 2.6), tone)


def school(site: Site, nursery: Nursery) -> None:
    """Build a school: wings of a flat-roofed building, a yard with courts, parked cars and trees."""
    world = site.world
    if site.w < site.h:
        site = site.turned()
    green(site)
    half = site.w * world.uniform(0.4, 0.55)
    paved(site.part(2, 2, half, site.h - 2), "worn")
    height, thick = world.uniform(6, 12), world.uniform(12, 18)
    hall(site, half / 2, 4 + thick / 2, half * 0.85, thick, 0.0, height)
    hall(site, 6 + thick / 2, site.h / 2 + 4, site.h * 0.5, thick, math.pi / 2, height)
    car_park(site.part(half * 0.45, site.h * 0.55, half - 3, site.h - 3), nursery, 0.7)
    sports_ground(site.part(half + 3, 2, site.w - 2, site.h - 2), nursery)


def park(site: Site, nursery: Nursery) -> None:
    """Grow a park: groves, paths and a pond."""
    world = site.world
    for _ in range(2):
        stops = [
            (0.0, world.uniform(0, site.h)),
            (site.w / 2, world.uniform(0, site.h)),
            (site.w, world.uniform(0, site.h)),
        ]
        surface(site, curve(stops), 2.2, "gravel", "lawn", 0.0)
    if world.chance(0.5):
        _pond(site)
    grove(site, nursery, world.uniform(0.3, 0.75))


def _pond(site: Site) -> None:
    """Dig a pond with a muddy rim."""
    world = site.world
    centre = site.at(world.uniform(0, site.w), world.uniform(0, site.h))
    t = np.linspace(0, 2 * math.pi, 17)[:-1]
    r = world.uniform(5, 16) / world.gsd * world.rng.uniform(0.88, 1.12, 16)
    ring = centre + np.stack([np.cos(t) * r, np.sin(t) * r * world.uniform(0.5, 1)], axis=1)
    world.canvas.glaze([(ring - centre) * 1.12 + centre], mix(world.biome.soil[1], rgb(90, 96, 80), 0.5), 0.8)
    world.canvas.glaze([ring], vary(world.rng, rgb(44, 62, 62), 0.3), 0.94)
    world.take(centre + box(-1, -1, 1, 1) * float(r.max()), BUILT)


def truck_yard(site: Site, nursery: Nursery) -> None:
    """Park trucks and bare trailers side by side in a depot."""
    world = site.world
    paved(site, world.pick(("asphalt", "concrete", "worn")))
    paint = paint_tone(world)
    fill, y = world.uniform(0.45, 0.95), 3.0
    while y + 18 < site.h:
        for x in np.arange(3, site.w - 3, 3.6):
            if not world.near(site.at(float(x), y + 9), 60):
                continue
            line(site, np.array([[x - 1.8, y], [x - 1.8, y + 18]]), None, paint, 0.12)
            if world.chance(fill):
                heading = math.pi / 2 * (1 if world.chance(0.8) else -1)
                add_truck(site, float(x), y + 9 + world.uniform(-0.5, 0.5), heading, trailer=world.chance(0.85))
        y += 18 + world.uniform(14, 20)


def split(site: Site, low: float, high: float) -> list[Site]:
    """Divide a site into rectangles with sides about `low`..`high` metres by guillotine cuts."""
    world = site.world
    if max(site.w, site.h) <= high or min(site.w, site.h) < low * 0.6:
        return [site]
    share = world.uniform(0.38, 0.62)
    if site.w >= site.h:
        parts = [site.part(0, 0, site.w * share, site.h), site.part(site.w * share, 0, site.w, site.h)]
    else:
        parts = [site.part(0, 0, site.w, site.h * share), site.part(0, site.h * share, site.w, site.h)]
    return [piece for part in parts for piece in split(part, low, high)]
