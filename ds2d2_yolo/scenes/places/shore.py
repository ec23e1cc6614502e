"""Complete scenes on coasts and open water, with vessels under way."""

from __future__ import annotations

import math

import numpy as np

from ds2d2_yolo.scenes.drawing import palette
from ds2d2_yolo.scenes.drawing.canvas import Points
from ds2d2_yolo.scenes.drawing.geometry import Pose
from ds2d2_yolo.scenes.objects.roads import straight, street
from ds2d2_yolo.scenes.objects.vegetation import Nursery, grove
from ds2d2_yolo.scenes.objects.vessels import add_ship
from ds2d2_yolo.scenes.objects.water import Sea, rocks, shoreline
from ds2d2_yolo.scenes.places.zones import car_park, houses
from ds2d2_yolo.scenes.site import Site, full_site
from ds2d2_yolo.scenes.world import WET, World

TRAFFIC = (
    ("bulker", 70.0, 190.0),
    ("tanker", 70.0, 200.0),
    ("boxship", 90.0, 200.0),
    ("ferry", 40.0, 130.0),
    ("barge", 45.0, 110.0),
    ("workboat", 14.0, 34.0),
    ("workboat", 14.0, 34.0),
    ("motorboat", 8.0, 16.0),
    ("motorboat", 8.0, 16.0),
    ("sailboat", 9.0, 16.0),
)


def under_way(world: World, sea: Sea, site: Site, count: int) -> None:
    """Set vessels under way with their wakes, and some at anchor."""
    wakes: list[tuple[Pose, float]] = []
    for _ in range(count * 4):
        kind, low, high = world.pick(TRAFFIC)
        limit = world.size * world.gsd * 0.62
        length = max(min(world.uniform(low, high), limit), 11.5 * world.gsd)
        x, y = world.uniform(0, site.w), world.uniform(0, site.h)
        pose = site.pose(x, y, length * 1.2, length * 0.35, heading := world.uniform(0, 2 * math.pi))
        if not world.inside(pose.corners) or not world.is_free(pose.corners, 0xFF & ~WET):
            continue
        if not all(world.taken[int(c[1]), int(c[0])] & WET for c in np.clip(pose.corners, 0, world.size - 1)):
            continue
        placed = add_ship(site, x, y, heading, kind, length)
        if placed is not None:
            if world.chance(0.72):
                slow = kind in ("bulker", "tanker", "boxship", "barge")
                wakes.append((placed, world.uniform(0.05, 0.4) if slow else world.uniform(0.3, 1.0)))
            if len(world.labels) >= count:
                break
    for pose, speed in wakes:
        sea.wake(pose, speed)


def coast(world: World) -> None:
    """Draw a coast or open water: a beach with surf, rocks, vessels under way with wakes."""
    nursery, sea, site = Nursery(world), Sea(world), full_site(world)
    side = site.w
    land = side * world.weighted(((world.uniform(0.18, 0.42), 3.0), (-0.5, 1.2)))
    edge = shoreline(
        site, (-0.2 * side, land), (1.2 * side, land + world.uniform(-0.2, 0.2) * side), world.uniform(0.4, 1.0)
    )
    ring: Points = np.concatenate([edge, [[1.3 * side, 2 * side], [-0.3 * side, 2 * side]]])
    beach = np.concatenate(
        [edge + np.array([0, -1.0]) * world.uniform(6, 34), [[1.3 * side, 2 * side], [-0.3 * side, 2 * side]]]
    )
    world.texture("sand", palette.SAND if world.chance(0.7) else palette.GRAVEL, 0.35)
    world.canvas.textured([site.px(beach)], world.texture("sand"))
    sea.flood([site.px(ring)])
    sea.settle(world.uniform(25, 110), world.uniform(0.5, 0.95))
    near = max(0.0, land)
    rocks(site.part(0, near, side, near + side * 0.2), sea, int(world.rng.integers(0, 40)))
    if land > 0:
        _hinterland(site, land, nursery)
    sea.whitecaps(world.uniform(0.0, 1.3))
    under_way(world, sea, site.part(0, near, side, side), len(world.labels) + int(world.rng.integers(8, 34)))
    sea.paint_foam()


def _hinterland(site: Site, land: float, nursery: Nursery) -> None:
    """Cover the land behind a beach: a wood, or houses and a road."""
    world, side = site.world, site.w
    back = site.part(0, 0, side, max(10.0, land - side * 0.16))
    if world.chance(0.5) and world.gsd < 0.7 and back.h > 60:
        street(back, straight(0, back.h - 8, side, back.h - 8), 2, 40, 0.1)
        for k in range(5):
            part = back.part(side * k / 5, 0, side * (k + 1) / 5 - 8, back.h - 16)
            if part.visible():
                world.weighted(((houses, 3.0), (car_park, 1.0)))(part, nursery)
    else:
        grove(back, nursery, world.uniform(0.3, 0.9))
