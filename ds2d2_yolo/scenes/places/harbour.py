"""Complete scenes in harbours: ports and marinas."""

from __future__ import annotations

import math

import cv2
import numpy as np

from ds2d2_yolo.scenes.drawing import palette
from ds2d2_yolo.scenes.drawing.palette import rgb, shade, vary
from ds2d2_yolo.scenes.objects.buildings import container_stack, crate, hall
from ds2d2_yolo.scenes.objects.roads import straight, street
from ds2d2_yolo.scenes.objects.vegetation import Nursery, scatter
from ds2d2_yolo.scenes.objects.vehicles import add_truck
from ds2d2_yolo.scenes.objects.vessels import LARGE, add_ship
from ds2d2_yolo.scenes.objects.water import Sea
from ds2d2_yolo.scenes.places.shore import under_way
from ds2d2_yolo.scenes.places.works import container_yard, tank_farm
from ds2d2_yolo.scenes.places.zones import car_park, offices, paved
from ds2d2_yolo.scenes.site import Site, full_site
from ds2d2_yolo.scenes.world import BUILT, World


def quay_edge(site: Site, x0: float, x1: float, y: float) -> None:
    """Paint the coping of a quay along y, with fenders and bollards."""
    world = site.world
    world.canvas.convex(site.rect(x0, y - 1.6, x1, y), rgb(176, 172, 162))
    world.canvas.convex(site.rect(x0, y - 0.5, x1, y + 0.5), rgb(96, 92, 86))
    for x in np.arange(x0 + 4, x1, 14.0):
        world.canvas.convex(site.rect(float(x), y - 0.2, float(x) + 1.6, y + 1.2), rgb(40, 40, 42))


def moor(site: Site, x0: float, x1: float, y: float, kinds: tuple[str, ...], low: float, high: float) -> None:
    """Moor ships one after another along a quay whose water lies at larger y."""
    world, x = site.world, x0 + 3
    while x < x1 - low:
        length = world.uniform(low, high)
        kind = world.pick(kinds)
        if world.chance(0.85) and x + length < x1:
            heading = world.pick((0.0, math.pi)) + world.uniform(-0.008, 0.008)
            slender = {"workboat": 3.4, "motorboat": 2.9}.get(kind, 6.0)
            beam = length / slender * 1.1
            placed = add_ship(site, x + length / 2, y + 1.8 + beam / 2, heading, kind, length)
            if placed is not None and world.chance(0.15):
                add_ship(site, x + length / 2, y + 3.4 + beam * 1.5, heading, kind, length * 0.9)
        x += length + world.uniform(4, 18)


def crane(site: Site, x: float, y: float, water: float) -> None:
    """Stand a gantry crane on a quay, its boom over the water."""
    world = site.world
    tone = vary(
        world.rng, world.pick((rgb(60, 96, 148), rgb(186, 92, 50), rgb(196, 170, 80), rgb(170, 172, 172))), 0.12
    )
    legs = site.rect(x - 8, y - 18, x + 8, y)
    boom = site.rect(x - 1.6, y - 34, x + 1.6, y + water)
    world.take(legs, BUILT)
    world.canvas.glaze([boom + world.shadow * 16], rgb(24, 26, 30), 0.42)

    def draw() -> None:
        for edge in (-7, 5.6):
            world.canvas.convex(site.rect(x + edge, y - 18, x + edge + 1.5, y), shade(tone, 0.8))
        world.canvas.convex(boom, shade(tone, 0.7))
        for side in (-1.6, 1.0):
            world.canvas.convex(site.rect(x + side, y - 34, x + side + 0.7, y + water), tone)
        for at in np.arange(-32, water, 5.0):
            world.canvas.convex(site.rect(x - 1.6, y + at, x + 1.6, y + at + 0.6), tone)
        world.canvas.convex(site.rect(x - 4, y - 30, x + 4, y - 21), rgb(190, 190, 186))

    world.high.append(draw)


def port(world: World) -> None:
    """Draw a port: basins between quays with ships alongside, yards, sheds, cranes and tanks on land."""
    nursery, sea, site = Nursery(world), Sea(world), full_site(world)
    side = site.w
    quay = side * world.uniform(0.36, 0.62)
    fingers = world.chance(0.55)
    sea.flood([site.rect(-side, quay, 2 * side, 2 * side)])
    sea.settle(0.0, 0.0)
    under = site.part(0, quay + 8, side, side)
    edges = [(0.0, side, quay)]
    piers: list[Site] = []
    if fingers:
        x = side * world.uniform(0.1, 0.3)
        while x < side * 0.9:
            wide, deep = world.uniform(30, 80), side * world.uniform(0.18, 0.4)
            piers.append(site.part(x, quay - 1, x + wide, quay + deep))
            x += wide + world.uniform(60, 130)
    for pier in piers:
        _dry(world, pier)
    _port_land(site.part(0, 0, side, quay), nursery)
    for x0, x1, y in edges:
        quay_edge(site, x0, x1, y)
    for pier in piers:
        _pier(pier, nursery)
    gaps = _gaps(piers, site, quay)
    for x0, x1 in gaps:
        _berths(site, x0, x1, quay)
    sea.whitecaps(world.uniform(0.0, 0.3))
    under_way(world, sea, under, len(world.labels) + int(world.rng.integers(3, 10)))
    sea.paint_foam()


def _dry(world: World, pier: Site) -> None:
    """Turn a rectangle back from water into a paved pier."""
    world.take(pier.all(), BUILT)
    window = world.taken
    mask = np.zeros_like(window)
    cv2.fillConvexPoly(mask, np.rint(pier.all() * 16 - 8).astype(np.int32), (255,), cv2.LINE_8, 4)
    window[mask > 0] = 0
    paved(pier, "concrete")


def _gaps(piers: list[Site], site: Site, quay: float) -> list[tuple[float, float]]:
    """Return the stretches of quay between the piers in site metres."""
    world, ends = site.world, [0.0]
    for pier in piers:
        shift = pier.origin - site.origin
        x = float(shift[0] * math.cos(site.angle) + shift[1] * math.sin(site.angle)) * world.gsd
        ends += [x - 2, x + pier.w + 2]
    ends.append(site.w)
    return [(ends[i], ends[i + 1]) for i in range(0, len(ends), 2)]


def _berths(site: Site, x0: float, x1: float, quay: float) -> None:
    world = site.world
    big = world.chance(0.65) and x1 - x0 > 90
    if big:
        moor(site, x0, x1, quay, LARGE, 70, min(200.0, x1 - x0 - 6, world.size * world.gsd * 0.6))
        for x in np.arange(x0 + 30, x1 - 30, world.uniform(45, 90)):
            if world.chance(0.6):
                crane(site, float(x), quay - 4, world.uniform(22, 40))
    else:
        moor(site, x0, x1, quay, ("workboat", "workboat", "motorboat", "barge"), max(12, 12 * world.gsd), 42)


def _pier(pier: Site, nursery: Nursery) -> None:
    """Furnish a pier: sheds or containers on it, ships along both sides and its head."""
    world = pier.world
    if pier.w > 44 and world.chance(0.6):
        hall(pier, pier.w / 2, pier.h * 0.45, pier.h * 0.6, pier.w * 0.4, math.pi / 2, 9)
    elif world.chance(0.6):
        container_stack(pier.part(8, 6, pier.w - 8, pier.h - 8))
    for _ in range(int(pier.h / 14)):
        add_truck(pier, world.pick((5.0, pier.w - 5)), world.uniform(10, pier.h - 6), math.pi / 2)
    kinds = world.pick((("bulker", "boxship", "tanker"), ("workboat", "barge", "ferry"), ("workboat", "motorboat")))
    limits = (60, 150) if kinds[0] == "bulker" else (max(13, 12 * world.gsd), 40)
    right = Site(world, pier.at(pier.w, pier.h), pier.angle - math.pi / 2, pier.h, pier.w)
    left = Site(world, pier.at(0, 0), pier.angle + math.pi / 2, pier.h, pier.w)
    for edge in (right, left):
        quay_edge(edge, 0, edge.w, 0.0)
        moor(edge, 0, edge.w - 4, 0.0, kinds, *limits)
    quay_edge(pier, 0, pier.w, pier.h)


def _port_land(site: Site, nursery: Nursery) -> None:
    """Lay out the land behind the quay: an apron with trucks, yards, sheds, tanks, a road."""
    world = site.world
    paved(site, world.pick(("concrete", "asphalt", "worn")))
    apron = site.h - world.uniform(24, 40)
    low = apron
    while low > 40:
        high, low = low, low - world.uniform(60, 120)
        x = 0.0
        while x < site.w:
            wide = world.uniform(90, 190)
            block = site.part(x, max(0.0, low), min(x + wide, site.w), high)
            if block.visible() and block.w > 20 and block.h > 20:
                zone = world.weighted(((container_yard, 4.0), (offices, 2.0), (tank_farm, 3.0), (car_park, 1.0)))
                zone(block, nursery)
            x += wide + world.uniform(6, 14)
        low -= 16
        if low > 0:
            street(site, straight(0, low + 8, site.w, low + 8), 2, world.uniform(15, 40), 0.55)
    for _ in range(int(site.w / 18)):
        add_truck(site, world.uniform(0, site.w), world.uniform(apron + 4, site.h - 8), world.pick((0.0, math.pi)))
        tone = vary(world.rng, world.pick(palette.CONTAINER_COLOURS), 0.2)
        crate(site, world.uniform(0, site.w), world.uniform(apron + 2, site.h - 6), 6.1, 2.4, 0.0, 2.6, tone)


def marina(world: World) -> None:
    """Draw a marina: rows of boats berthed at floating piers, a promenade, car parks behind."""
    nursery, sea, site = Nursery(world), Sea(world), full_site(world)
    side = site.w
    quay = side * world.uniform(0.24, 0.42)
    sea.flood([site.rect(-side, quay, 2 * side, 2 * side)])
    sea.settle(0.0, 0.0)
    land = site.part(0, 0, side, quay)
    paved(land.part(0, quay - 12, side, quay), "concrete")
    street(land, straight(0, quay - 20, side, quay - 20), 2, 26, 0.08)
    for k in range(4):
        block = land.part(side * k / 4 + 3, 2, side * (k + 1) / 4 - 3, quay - 30)
        if block.visible():
            world.weighted(((car_park, 3.0), (offices, 1.0)))(block, nursery)
    quay_edge(site, 0, side, quay)
    x = side * 0.16
    low = max(7.5, 11.0 * world.gsd)
    while x < side * 0.86:
        size = world.uniform(low, max(low + 2, 16))
        _jetty(site, x, quay, min(side * world.uniform(0.25, 0.42), side - quay), size)
        x += size * 2 + world.uniform(14, 22)
    under_way(world, sea, site.part(0, quay + 6, side, side), len(world.labels) + int(world.rng.integers(3, 9)))
    scatter(land, nursery, 40)
    sea.paint_foam()


def _jetty(site: Site, x: float, y: float, reach: float, size: float) -> None:
    """Build one floating pier with finger pontoons and boats on both sides."""
    world = site.world
    deck = vary(world.rng, palette.DECK[1], 0.15)
    walk = site.rect(x - 1.1, y - 1, x + 1.1, y + reach)
    world.take(walk, BUILT)
    world.cast(walk, 0.6)
    world.low.insert(0, lambda: world.canvas.convex(walk, deck))
    pitch, fill = size * world.uniform(0.40, 0.5), world.uniform(0.6, 0.97)
    for k in range(int((reach - 8) / pitch)):
        at = y + 6 + k * pitch
        for side in (-1, 1):
            if k % 2 == 0:
                a, b = sorted((x + side * 1.1, x + side * size * 0.8))
                finger = site.rect(a, at - pitch / 2 - 0.3, b, at - pitch / 2 + 0.3)
                world.low.insert(0, lambda finger=finger: world.canvas.convex(finger, shade(deck, 0.94)))  # type: ignore[misc]
            if world.chance(fill):
                length = size * world.uniform(0.8, 0.98)
                kind = world.weighted((("motorboat", 3.0), ("sailboat", 2.4)))
                heading = (0.0 if side > 0 else math.pi) + (math.pi if world.chance(0.4) else 0.0)
                add_ship(site, x + side * (1.7 + length / 2), at, heading + world.uniform(-0.02, 0.02), kind, length)
