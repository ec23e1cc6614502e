"""Complete scenes on land: towns of blocks between streets, and open country with a motorway."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from ds2d2_yolo.scenes.drawing.palette import rgb, vary
from ds2d2_yolo.scenes.objects.buildings import crate, house
from ds2d2_yolo.scenes.objects.roads import crossing, curve, kerbside, motorway, straight, street, surface
from ds2d2_yolo.scenes.objects.vegetation import Nursery, bales, field, green, grove, row, scatter
from ds2d2_yolo.scenes.places.sports import sports_ground
from ds2d2_yolo.scenes.places.works import (
    container_yard,
    glasshouses,
    plant,
    railway,
    solar_farm,
    tank_farm,
    water_works,
)
from ds2d2_yolo.scenes.places.zones import CAR_SCALE, car_park, houses, offices, park, school, shops, split, truck_yard
from ds2d2_yolo.scenes.site import Site, full_site
from ds2d2_yolo.scenes.world import BUILT, OBJECT, PAVED, World

Zone = Callable[[Site, Nursery], None]
Weights = Sequence[tuple[Zone, float]]


def sidings(site: Site, nursery: Nursery) -> None:
    """Lay railway sidings beside a yard with halls."""
    site = site.turned() if site.w < site.h else site
    deep = min(site.h * 0.6, site.world.uniform(14, 48))
    railway(site.part(0, 0, site.w, deep))
    offices(site.part(0, deep + 2, site.w, site.h), nursery)


COMMERCE: Weights = ((car_park, 3.0), (shops, 4.0), (offices, 2.0), (truck_yard, 0.6), (park, 0.4))
SUBURB: Weights = ((houses, 6.0), (park, 0.9), (school, 1.2), (shops, 0.6), (sports_ground, 1.8))
SPORTS: Weights = ((sports_ground, 5.0), (school, 2.0), (park, 0.7), (houses, 1.5), (car_park, 0.6))
TANKS: Weights = ((tank_farm, 6.0), (plant, 2.5), (water_works, 0.5), (offices, 0.5))
INDUSTRY: Weights = (
    (offices, 2.0),
    (truck_yard, 3.5),
    (container_yard, 2.5),
    (plant, 1.5),
    (tank_farm, 3.5),
    (car_park, 1.0),
    (glasshouses, 0.4),
    (water_works, 0.5),
    (sidings, 1.2),
)
MIXED: Weights = (
    (sports_ground, 2.0),
    (houses, 2.5),
    (car_park, 2.5),
    (offices, 1.5),
    (tank_farm, 2.0),
    (truck_yard, 1.0),
    (park, 1.0),
    (shops, 1.0),
)


def _blocks(site: Site, block: float, width: float, streets: list[tuple[Site, float, bool]]) -> list[Site]:
    """Cut a site into blocks by streets; the streets are noted as (site, width, main)."""
    world = site.world
    if max(site.w, site.h) < 1.5 * block or min(site.w, site.h) < 0.5 * block:
        return [site]
    share = world.uniform(0.35, 0.65)
    if site.w >= site.h:
        a, b = site.w * share - width / 2, site.w * share + width / 2
        streets.append((site.part(a, 0, b, site.h).turned(), width, False))
        halves = [site.part(0, 0, a, site.h), site.part(b, 0, site.w, site.h)]
    else:
        a, b = site.h * share - width / 2, site.h * share + width / 2
        streets.append((site.part(0, a, site.w, b), width, False))
        halves = [site.part(0, 0, site.w, a), site.part(0, b, site.w, site.h)]
    return [piece for half in halves for piece in _blocks(half, block, width, streets)]


def town(world: World, weights: Weights, block: tuple[float, float], trucks: float, busy: tuple[float, float]) -> None:
    """Fill the picture with blocks of a town.

    Args:
        world (World): The scene.
        weights (Sequence[tuple[Zone, float]]): Zones and how common they are.
        block (tuple[float, float]): Range of a block's side in metres.
        trucks (float): Share of trucks in traffic.
        busy (tuple[float, float]): Range of the mean distance between vehicles on a lane in metres.
    """
    nursery = Nursery(world)
    site = full_site(world)
    lanes = world.weighted(((2, 3.0), (4, 1.0)))
    parked = world.gsd < CAR_SCALE and world.chance(0.5)
    streets: list[tuple[Site, float, bool]] = []
    width = lanes * 3.3 + 5.0
    side = min(world.uniform(*block), site.w * 0.45)
    blocks = _blocks(site, side, width, streets)
    distance = world.uniform(*busy)
    for road, wide, _ in streets:
        if road.visible():
            path = straight(-wide / 2, road.h / 2, road.w + wide / 2, road.h / 2)
            street(road, path, lanes, distance, trucks)
            if parked:
                kerbside(road, straight(10, road.h / 2, road.w - 10, road.h / 2), lanes)
    for road, wide, _ in streets:
        for x in (-wide / 2, road.w + wide / 2):
            crossing(road, x, road.h / 2, lanes * 3.3, lanes * 3.3)
    for number, piece in enumerate(blocks):
        if piece.visible():
            zone = weights[0][0] if number % 2 == 0 else world.weighted(weights)
            zone(piece, nursery)
    for road, _, _ in streets:
        if world.chance(0.6) and road.visible():
            for y in (0.6, road.h - 0.6):
                row(road, nursery, (4, y), (road.w - 4, y), world.uniform(8, 16))


def country(world: World) -> None:
    """Draw fields, woods and farms crossed by a motorway or a country road."""
    nursery = Nursery(world)
    site = full_site(world)
    later: list[tuple[Site, Zone]] = []
    for piece in split(site.turned_by(world.uniform(-0.4, 0.4), 1.2), site.w * 0.16, site.w * 0.42):
        if piece.visible():
            kind = world.weighted((("field", 6.0), ("meadow", 2.0), ("wood", 1.8), ("solar", 0.4), ("glass", 0.25)))
            _parcel(piece if world.chance(0.5) else piece.turned(), kind, nursery, later)
    motor = world.chance(0.7)
    side = site.w
    bend = world.uniform(-0.22, 0.22) * side
    path = curve(
        [(-0.1 * side, side / 2 - bend), (side * 0.3, side / 2), (side * 0.7, side / 2), (side * 1.1, side / 2 + bend)]
    )
    if motor:
        motorway(site, path, world.pick((2, 3)), world.uniform(10, 45), world.uniform(0.3, 0.7))
    else:
        street(site, path, 2, world.uniform(15, 50), 0.35, "gravel")
    second = straight(side * world.uniform(0.3, 0.7), 0, side * world.uniform(0.3, 0.7), side)
    if not motor or world.chance(0.5):
        street(site, second, 2, world.uniform(25, 60), 0.2, "gravel")
    if world.chance(0.65):
        rest_area = site.part(side * 0.34, side / 2 + 40, side * 0.66, side / 2 + 40 + world.uniform(24, 66))
        truck_yard(rest_area, nursery)
        join = float(np.interp(side * 0.2, path[:, 0], path[:, 1]))
        slip = [
            (side * 0.2, join + 14),
            (side * 0.26, join + 18),
            (side * 0.33, side / 2 + 40),
            (side * 0.36, side / 2 + 50),
        ]
        surface(site, curve(slip), 5)
    for piece, zone in later:
        zone(piece, nursery)
    for piece in split(site, side * 0.2, side * 0.45):
        if piece.visible() and world.chance(0.25):
            farm(piece, nursery)
    scatter(site, nursery, 40)


def _wood(site: Site, nursery: Nursery) -> None:
    """Plant a wood with a ragged edge."""
    grove(site, nursery, site.world.uniform(0.35, 0.85))


def _hedgerow(site: Site, nursery: Nursery) -> None:
    """Plant trees along an edge, roads left free."""
    row(site, nursery, (0, 0), (site.w, 0), site.world.uniform(4, 9), force=False)


def _parcel(site: Site, kind: str, nursery: Nursery, later: list[tuple[Site, Zone]]) -> None:
    """Draw one parcel of land; what must leave roads free is noted, to be drawn when they are there."""
    world = site.world
    if kind == "field":
        field(site, world.pick(world.biome.fields))
    elif kind == "meadow":
        green(site)
        if world.chance(0.6):
            bales(site, int(world.rng.integers(4, 30)))
    elif kind == "wood":
        later.append((site, _wood))
    elif kind == "solar":
        green(site)
        later.append((site, solar_farm))
    else:
        later.append((site, glasshouses))
    if world.chance(0.3):
        later.append((site, _hedgerow))


def farm(site: Site, nursery: Nursery) -> None:
    """Build a farmyard: barns, a house, sheds, trees."""
    world = site.world
    x, y = site.w * world.uniform(0.3, 0.7), site.h * world.uniform(0.3, 0.7)
    yard = site.part(x - 22, y - 18, x + 22, y + 18)
    if not world.is_free(yard.all(), OBJECT | PAVED | BUILT):
        return
    world.canvas.textured([yard.all()], world.texture("gravel"))
    world.take(yard.all(), PAVED)
    for _ in range(4):
        size = world.uniform(12, 26), world.uniform(8, 13)
        turn = world.pick((0.0, math.pi / 2))
        house(yard, world.uniform(4, 40), world.uniform(4, 32), *size, turn)
    for _ in range(6):
        tone = vary(world.rng, world.pick((rgb(150, 60, 48), rgb(70, 100, 70), rgb(150, 146, 138))), 0.2)
        crate(
            yard, world.uniform(0, 44), world.uniform(0, 36), world.uniform(2, 7), 2.4, world.uniform(0, 6.3), 2.2, tone
        )
    scatter(site.part(x - 40, y - 40, x + 40, y + 40), nursery, 26)
