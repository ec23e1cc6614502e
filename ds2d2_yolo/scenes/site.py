"""Rectangles of ground in metres, on which zones and objects are laid out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ds2d2_yolo.scenes.drawing.canvas import Points
from ds2d2_yolo.scenes.drawing.geometry import Pose, box
from ds2d2_yolo.scenes.world import World


@dataclass(frozen=True)
class Site:
    """A rectangle of ground in metres, `w` by `h`, its corner at a pixel and its x axis at an angle in the picture."""

    world: World
    origin: Points
    angle: float
    w: float
    h: float

    def px(self, points: Points) -> Points:
        """Return site points (N, 2) in metres as pixels."""
        scale = 1 / self.world.gsd
        c, s = math.cos(self.angle) * scale, math.sin(self.angle) * scale
        turned = np.empty(points.shape)
        turned[:, 0] = self.origin[0] + (points[:, 0] * c - points[:, 1] * s)
        turned[:, 1] = self.origin[1] + (points[:, 0] * s + points[:, 1] * c)
        return turned

    def at(self, x: float, y: float) -> Points:
        """Return one site point in pixels."""
        point: Points = self.px(np.array([[x, y]], np.float64))[0]
        return point

    def rect(self, x0: float, y0: float, x1: float, y1: float) -> Points:
        """Return a rectangle in pixels."""
        return self.px(box(x0, y0, x1, y1))

    def all(self) -> Points:
        """Return the outline of the site in pixels."""
        return self.rect(0, 0, self.w, self.h)

    def pose(self, x: float, y: float, length: float, width: float, heading: float = 0.0) -> Pose:
        """Return the pose of an object in metres, its nose `heading` radians from the x axis."""
        angle, scale = self.angle + heading, 1 / self.world.gsd
        c, s = math.cos(angle), math.sin(angle)
        along, across = np.array([c, s]) * (length * scale), np.array([-s, c]) * (width * scale)
        return Pose(self.at(x, y), along, across)

    def part(self, x0: float, y0: float, x1: float, y1: float) -> Site:
        """Return a rectangle of this site as a new site."""
        return Site(self.world, self.at(x0, y0), self.angle, x1 - x0, y1 - y0)

    def turned(self) -> Site:
        """Return the same ground with x and y exchanged (a quarter turn)."""
        return Site(self.world, self.at(self.w, 0), self.angle + math.pi / 2, self.h, self.w)

    def turned_by(self, angle: float, cover: float = 1.0) -> Site:
        """Return a square site turned about this one's centre, its side `cover` times the longer side."""
        side = max(self.w, self.h) * cover
        around = Site(self.world, self.at(self.w / 2, self.h / 2), self.angle + angle, side, side)
        return Site(self.world, around.at(-side / 2, -side / 2), around.angle, side, side)

    def visible(self) -> bool:
        """Tell whether the site may show in the picture."""
        centre = self.at(self.w / 2, self.h / 2)
        return self.world.near(centre, math.hypot(self.w, self.h) / 2 / self.world.gsd)


def full_site(world: World, cover: float = 1.45) -> Site:
    """Return the site that covers the entire picture whatever the rotation."""
    side = world.size * world.gsd * cover
    centre = Site(world, np.array([world.size / 2, world.size / 2]), world.theta, side, side)
    return Site(world, centre.at(-side / 2, -side / 2), world.theta, side, side)
