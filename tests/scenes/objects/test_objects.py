"""Every kind of object, drawn alone: its label must be tight on what is drawn."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from ds2d2_yolo.scenes.drawing import palette
from ds2d2_yolo.scenes.objects import facilities, vehicles, vessels
from ds2d2_yolo.scenes.objects.aircraft import AIRFRAMES, add_aircraft
from ds2d2_yolo.scenes.site import Site, full_site
from ds2d2_yolo.scenes.world import AIRCRAFT, CAR, COURT, SHIP, TANK, TRUCK, World

Add = Callable[[Site, float, float, float], object]
GROUND = (7, 123, 251)
LENGTHS = {"motorboat": 14.0, "sailboat": 15.0, "workboat": 28.0}


def _ship(kind: str) -> Add:
    return lambda site, x, y, heading: vessels.add_ship(site, x, y, heading, kind, LENGTHS.get(kind, 120.0))


def _aircraft(kind: str) -> Add:
    return lambda site, x, y, heading: add_aircraft(site, x, y, heading, kind)


def _court(sport: str) -> Add:
    scheme = facilities.COURT_SCHEMES[0]
    return lambda site, x, y, heading: facilities.add_court(site, x, y, sport, scheme, heading)


def _tank(floating: bool) -> Add:
    tone = palette.rgb(210, 208, 200)
    return lambda site, x, y, heading: facilities.add_tank(site, x, y, 24.0, tone, floating)


CASES: dict[str, tuple[int, float, Add]] = {
    "car": (CAR, 0.2, vehicles.add_car),
    "small car": (CAR, 0.4, vehicles.add_car),
    "truck": (TRUCK, 0.4, vehicles.add_truck),
    "cone roof tank": (TANK, 0.5, _tank(False)),
    "floating roof tank": (TANK, 0.5, _tank(True)),
    **{kind: (SHIP, 0.4, _ship(kind)) for kind in vessels.KINDS},
    **{kind: (AIRCRAFT, 0.4, _aircraft(kind)) for kind in AIRFRAMES},
    **{sport: (COURT, 0.6, _court(sport)) for sport in facilities.SPORTS},
}


def place(add: Add, seed: int, gsd: float) -> World:
    """Return a world without ground, shadows or lean that holds one object."""
    world = World(np.random.default_rng(seed), 640, gsd)
    world.shadow, world.lean = np.zeros(2), np.zeros(2)
    world.canvas.image[:] = GROUND
    site = full_site(world)
    x, y = (site.w / 2 + world.uniform(-1, 1) for _ in range(2))
    assert add(site, x, y, world.uniform(0, 2 * math.pi))
    for draw in world.low:
        draw()
    return world


@pytest.mark.parametrize("name", CASES)
def test_the_label_is_tight_on_the_object(name: str) -> None:
    category, gsd, add = CASES[name]
    for seed in range(3):
        world = place(add, seed, gsd)
        ((label_category, corners),) = world.labels
        assert label_category == category
        rows, columns = np.nonzero((world.canvas.image != np.array(GROUND)).any(axis=2))
        drawn = (np.stack([columns, rows], axis=1) + 0.5) / 2 - corners.mean(axis=0)
        for edge in (corners[0] - corners[3], corners[1] - corners[0]):
            half = math.hypot(*edge) / 2
            along = drawn @ (edge / (2 * half))
            assert along.max() == pytest.approx(half, abs=0.6), f"seed {seed}"
            assert along.min() == pytest.approx(-half, abs=0.6), f"seed {seed}"


@pytest.mark.parametrize("name", CASES)
def test_the_label_is_a_rectangle_that_points_ahead(name: str) -> None:
    _, gsd, add = CASES[name]
    ((_, corners),) = place(add, 1, gsd).labels
    edges = np.roll(corners, -1, axis=0) - corners
    assert edges[0] == pytest.approx(-edges[2])
    assert float(edges[0] @ edges[1]) == pytest.approx(0, abs=1e-6)


def test_an_object_cut_by_the_border_is_refused() -> None:
    world = World(np.random.default_rng(0), 640, 0.3, theta=0.0)
    site = full_site(world)
    edge = (site.w - 640 * 0.3) / 2
    assert not vehicles.add_car(site, edge + 1.0, site.h / 2, 0.0)
    assert vehicles.add_car(site, edge + 3.0, site.h / 2, 0.0)
    assert len(world.labels) == 1


def test_two_objects_do_not_share_ground() -> None:
    world = World(np.random.default_rng(0), 640, 0.3)
    site = full_site(world)
    middle = site.w / 2
    assert vehicles.add_car(site, middle, middle, 0.0)
    assert not vehicles.add_truck(site, middle + 1, middle, 1.0)
    assert vehicles.add_car(site, middle, middle + 2.6, 0.0)  # the next stall of a car park


@pytest.mark.parametrize("gsd", [0.55, 2.0])
def test_an_object_below_the_smallest_size_is_refused(gsd: float) -> None:
    world = World(np.random.default_rng(0), 640, gsd)
    site = full_site(world)
    assert not vehicles.add_car(site, site.w / 2, site.h / 2, 0.3)
    assert not world.low
