"""Complete scenes at airports: terminals with stands, aprons, light aircraft, runways and taxiways."""

from __future__ import annotations

import math

import numpy as np

from ds2d2_yolo.scenes.drawing import palette
from ds2d2_yolo.scenes.drawing.canvas import Points
from ds2d2_yolo.scenes.drawing.palette import mix, rgb, shade, vary
from ds2d2_yolo.scenes.objects.aircraft import add_aircraft
from ds2d2_yolo.scenes.objects.buildings import crate, hall
from ds2d2_yolo.scenes.objects.roads import line, straight, street, surface
from ds2d2_yolo.scenes.objects.vegetation import Nursery, grove, scatter
from ds2d2_yolo.scenes.objects.vehicles import add_car, add_truck
from ds2d2_yolo.scenes.places.zones import CAR_SCALE, car_park, offices, paved
from ds2d2_yolo.scenes.site import Site, full_site
from ds2d2_yolo.scenes.world import BUILT, World

YELLOW = mix(palette.PAINT_YELLOW, rgb(140, 130, 100), 0.25)


def slabs(site: Site) -> None:
    """Pave an apron with concrete slabs: joints, replaced slabs and stains."""
    world = site.world
    paved(site, "concrete")
    pitch = world.pick((5.0, 6.0, 7.5))
    joint = mix(palette.CONCRETE[0], rgb(90, 88, 84), world.uniform(0.1, 0.5))
    for x in np.arange(0, site.w, pitch):
        world.canvas.stroke(site.px(np.array([[x, 0], [x, site.h]])), 0.4, joint)
    for y in np.arange(0, site.h, pitch):
        world.canvas.stroke(site.px(np.array([[0, y], [site.w, y]])), 0.4, joint)
    for _ in range(int(site.w * site.h / 600)):
        x, y = (int(world.uniform(0, v / pitch)) * pitch for v in (site.w, site.h))
        tone = rgb(196, 192, 184) if world.chance(0.5) else rgb(116, 112, 106)
        slab = site.rect(x, y, x + pitch * world.pick((1, 1, 2)), y + pitch)
        world.canvas.glaze([slab], tone, world.uniform(0.1, 0.45))
    for _ in range(int(site.w * site.h / 900)):
        blot = site.pose(world.uniform(0, site.w), world.uniform(0, site.h), world.uniform(1, 9), world.uniform(0.6, 3))
        world.canvas.glaze([blot.corners], rgb(70, 66, 62), 0.16)


def taxi_line(site: Site, path: Points) -> None:
    """Paint a yellow taxi line on a dark border."""
    world = site.world
    world.canvas.stroke(site.px(path), max(0.9, 0.6 / world.gsd), rgb(96, 92, 86))
    world.canvas.stroke(site.px(path), max(0.5, 0.25 / world.gsd), YELLOW)


def runway(site: Site, y: float) -> None:
    """Build a runway along x, with threshold, centre line, touch-down marks and rubber."""
    world = site.world
    wide = world.uniform(30, 46)
    path = straight(-20, y, site.w + 20, y)
    surface(site, path, wide + 14, "worn", "grass", 0.0)
    surface(site, path, wide, "asphalt", "grass", 0.0)
    for _ in range(60):
        x, v = world.uniform(0, site.w), world.uniform(-5, 5)
        streak = site.rect(x, y + v, x + world.uniform(30, 120), y + v + world.uniform(0.4, 1.2))
        world.canvas.glaze([streak], rgb(34, 34, 34), world.uniform(0.1, 0.3))
    paint = mix(palette.PAINT_WHITE, rgb(120, 118, 114), 0.2)
    line(site, path, (30, 20), paint, 0.9)
    for side in (-1, 1):
        line(site, straight(0, y + side * (wide / 2 - 1), site.w, y + side * (wide / 2 - 1)), None, paint, 0.9)
    start = site.w * world.uniform(0.2, 0.8)
    for k in range(-6, 6):
        at = y + (k + 0.5) * wide / 14 + (0.8 if k >= 0 else -0.8)
        world.canvas.convex(site.rect(start, at - 0.9, start + 30, at + 0.9), paint)
    for x in (150, 300):
        for v in (-8, 5):
            world.canvas.convex(site.rect(start + x, y + v, start + x + 22, y + v + 3), paint)


def stands(site: Site, kinds: tuple[str, ...], span: float, bridges: bool) -> None:
    """Park airliners nose in along y = 0, with lead-in lines, service vehicles and jet bridges."""
    world = site.world
    fill, x = world.uniform(0.65, 1.0), span * 0.6
    while x < site.w - span * 0.5:
        lead = np.array([[x, 8.0], [x, span * 1.5]])
        taxi_line(site, lead)
        world.canvas.glaze([site.rect(x - 3, 8, x + 3, span * 0.9)], rgb(80, 76, 72), 0.22)
        if world.chance(fill):
            kind = world.pick(kinds)
            length = span * 1.05
            placed = add_aircraft(site, x, 6 + length / 2 + world.uniform(0, 3), -math.pi / 2, kind)
            if placed is not None:
                _service(site, x, 6 + length * 0.3, span)
                if bridges:
                    _jet_bridge(site, x, length)
        for edge in (-1, 1):
            dash = np.array([[x + edge * span * 0.55, 4.0], [x + edge * span * 0.55, span * 1.1]])
            line(site, dash, (2.0, 2.0), rgb(190, 80, 64), 0.2)
        x += span * world.uniform(1.16, 1.3)


def _service(site: Site, x: float, y: float, span: float) -> None:
    """Gather trucks, tugs and baggage trolleys about an aircraft."""
    world = site.world
    for _ in range(int(world.rng.integers(2, 8))):
        spot = x + world.pick((-1, 1)) * world.uniform(0.2, 0.5) * span, y + world.uniform(-0.1, 0.6) * span
        heading = world.pick((0.0, 1.0, 2.0, 3.0)) * math.pi / 2
        if world.chance(0.4):
            add_truck(site, *spot, heading, trailer=False)
        elif world.gsd < CAR_SCALE and world.chance(0.5):
            add_car(site, *spot, heading)
        else:
            tone = vary(world.rng, world.pick((rgb(196, 170, 80), rgb(180, 180, 178), rgb(70, 90, 120))), 0.15)
            crate(site, *spot, world.uniform(2, 4), world.uniform(1.4, 2), heading, 1.6, tone)


def _jet_bridge(site: Site, x: float, length: float) -> None:
    world = site.world
    if not world.chance(0.85):
        return
    door = (x - 2.6, 6 + length * 0.14)
    path = site.px(np.array([[x - 13.0, -3.0], [x - 12.0, door[1] * 0.8], list(door)]))
    tone = vary(world.rng, rgb(188, 188, 184), 0.08)

    def draw() -> None:
        world.canvas.stroke(path + world.shadow * 2.0, 3.4 / world.gsd, rgb(84, 80, 78))
        world.canvas.stroke(path, 3.2 / world.gsd, tone)
        world.canvas.stroke(path, 1.6 / world.gsd, mix(tone, rgb(240, 240, 238), 0.5))
        world.canvas.disc(path[1], 2.4 / world.gsd, shade(tone, 0.9))

    world.low.insert(0, draw)


def airport(world: World) -> None:
    """Draw an airport: a terminal with stands, remote stands, taxiways, a runway, grass between them."""
    nursery, site = Nursery(world), full_site(world)
    side = site.w
    large = world.gsd > 0.55 and world.chance(0.4)
    kinds = ("wide", "four", "narrow") if large else world.pick((("narrow",), ("narrow", "narrow", "turboprop")))
    span = 66.0 if large else 38.0
    face = side * world.uniform(0.18, 0.34)
    depth = world.uniform(18, 34)
    apron = site.part(0, face, side, face + span * world.uniform(2.0, 2.6))
    slabs(apron)
    hall(site, side / 2, face - depth / 2, side * 0.94, depth, 0.0, 12)
    stands(apron, kinds, span, bridges=True)
    taxi = apron.h - span * 0.34
    taxi_line(apron, straight(0, taxi, side, taxi))
    _curves(apron, span, taxi)
    field = site.part(0, face + apron.h, side, side)
    while field.h > 0.34 * side and world.chance(0.8):
        field = _remote_stands(field, kinds, span)
    taxiway = world.uniform(26, 50)
    path = straight(0, taxiway, side, taxiway)
    surface(field, path, 24, "asphalt", "worn", 5)
    taxi_line(field, path)
    runway(field, taxiway + world.uniform(70, 130))
    _landside(site.part(0, 0, side, face - depth - 2), nursery)


def _remote_stands(site: Site, kinds: tuple[str, ...], span: float) -> Site:
    """Add two rows of stands tail to tail with a taxiway behind them; return the ground that is left."""
    world = site.world
    rows = site.part(0, 0, site.w, span * 3.1)
    slabs(rows)
    near = rows.part(0, span * 0.1, site.w, span * 1.5)
    stands(near, kinds, span, bridges=False)
    far = Site(world, rows.at(rows.w, span * 2.9), site.angle + math.pi, rows.w, span * 1.4)
    stands(far, kinds, span, bridges=False)
    taxi_line(rows, straight(0, span * 3.0, site.w, span * 3.0))
    if world.chance(0.5):
        for x in np.arange(span * 0.2, site.w, span * 2.4):
            hall(rows, float(x), span * 1.5, 14, 6, 0.0, 4)
    return site.part(0, rows.h, site.w, site.h)


def _curves(site: Site, span: float, taxi: float) -> None:
    """Join every lead-in line to the taxi line by an arc."""
    t = np.linspace(0, math.pi / 2, 9)
    x = span * 0.6
    while x < site.w:
        radius = span * 0.4
        arc = np.stack([x + radius * (1 - np.cos(t)), taxi - radius + radius * np.sin(t)], axis=1)
        taxi_line(site, arc)
        x += span * 1.23


def _landside(site: Site, nursery: Nursery) -> None:
    """Lay the road, car parks and offices before the terminal."""
    world = site.world
    if site.h < 30:
        return
    street(site, straight(0, site.h - 9, site.w, site.h - 9), 4, 22, 0.15)
    for k in range(4):
        block = site.part(site.w * k / 4 + 2, 2, site.w * (k + 1) / 4 - 6, site.h - 22)
        if block.visible() and block.h > 15:
            (car_park if world.gsd < CAR_SCALE and world.chance(0.75) else offices)(block, nursery)


def aerodrome(world: World) -> None:
    """Draw a small or military airfield: rows of light aircraft or fighters, hangars, grass, a runway."""
    nursery, site = Nursery(world), full_site(world)
    side = site.w
    military = world.chance(0.3)
    kinds: tuple[str, ...] = ("fighter",) if military else ("light", "light", "light", "light", "business")
    if world.gsd > 0.35 and not military:
        kinds = ("light", "business", "turboprop")
    top = side * world.uniform(0.18, 0.3)
    apron = site.part(side * 0.02, top, side * 0.98, top + side * world.uniform(0.36, 0.56))
    slabs(apron) if world.chance(0.6) else paved(apron, "worn")
    x = side * 0.04
    while x < side * 0.95:
        wide = world.uniform(18, 44)
        hall(site, x + wide / 2, top - 12, wide, 20, 0.0, 8)
        x += wide + world.uniform(4, 20)
    y = 14.0
    while y < apron.h - 14:
        step = _row_of_aircraft(apron, y, world.pick(kinds), kinds)
        y += step + world.uniform(6, 14)
        taxi_line(apron, straight(0, y - 8, apron.w, y - 8))
    below = site.part(0, top + apron.h, side, side)
    path = straight(0, 24, side, 24)
    surface(below, path, 14, "asphalt", "grass", 0)
    taxi_line(below, path)
    runway(below, 80)
    park = site.part(0, 0, side, max(8.0, top - 26))
    if world.chance(0.5) and park.h > 34:
        car_park(park.part(side * 0.2, park.h - 34, side * 0.8, park.h), nursery)
    else:
        grove(park, nursery, 0.5)
    scatter(park, nursery, 20)


def _row_of_aircraft(site: Site, y: float, kind: str, kinds: tuple[str, ...]) -> float:
    """Park one row; return its depth in metres."""
    world = site.world
    span = {"light": 12.5, "business": 22.0, "turboprop": 29.0, "fighter": 13.5}[kind]
    length = {"light": 9.8, "business": 24.0, "turboprop": 29.0, "fighter": 19.0}[kind]
    fill, turn = world.uniform(0.6, 1.0), world.uniform(-0.5, 0.5) if world.chance(0.4) else 0.0
    nose = world.pick((math.pi / 2, -math.pi / 2)) + turn
    x = span * 0.7
    while x < site.w - span * 0.6:
        if world.chance(fill):
            add_aircraft(site, x, y + length / 2, nose + world.uniform(-0.06, 0.06), kind)
        elif world.chance(0.2):
            add_car(site, x, y + length / 2, world.uniform(0, 6.28))
        if world.gsd < 0.4:
            mark = site.rect(x - 0.3, y + length * 0.5 - 3, x + 0.3, y + length * 0.5 + 3)
            world.canvas.convex(mark, YELLOW) if world.is_free(mark, BUILT | 1) else None
        x += span * world.uniform(1.05, 1.3)
    return length
