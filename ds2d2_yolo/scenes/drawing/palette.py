"""Colours of ground, paint and vegetation as they look from above: dull, close to grey, never pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, int, int]
Ramp = NDArray[np.uint8]


def rgb(red: float, green: float, blue: float) -> Colour:
    """Return a BGR colour from red, green and blue in 0..255, clipped."""
    return (_byte(blue), _byte(green), _byte(red))


def _byte(value: float) -> int:
    return min(255, max(0, round(value)))


def shade(colour: Colour, factor: float) -> Colour:
    """Return the colour made brighter (factor > 1) or darker."""
    return (_byte(colour[0] * factor), _byte(colour[1] * factor), _byte(colour[2] * factor))


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """Return `share` of colour `b` in colour `a`."""
    blue, green, red = (_byte(p + (q - p) * share) for p, q in zip(a, b, strict=True))
    return (blue, green, red)


def vary(rng: np.random.Generator, colour: Colour, amount: float) -> Colour:
    """Return the colour with a random brightness and a slight random tint, `amount` being the half range."""
    bright = 1 + float(rng.uniform(-amount, amount))
    blue, green, red = (_byte(c * bright * (1 + float(rng.uniform(-amount, amount)) / 3)) for c in colour)
    return (blue, green, red)


def ramp(stops: Sequence[Colour]) -> Ramp:
    """Return a table (256, 3) that turns noise (mean 128, deviation 48) into the colours between the stops."""
    at = np.linspace(36, 220, len(stops))
    index = np.arange(256)
    table = np.stack([np.interp(index, at, [stop[c] for stop in stops]) for c in range(3)], axis=1)
    return np.rint(table).astype(np.uint8)


@dataclass(frozen=True)
class Biome:
    """Colours of a region and a season.

    Attributes:
        grass (Sequence[Colour]): Meadow from dark to light.
        soil (Sequence[Colour]): Bare ground from dark to light.
        leaves (Sequence[Colour]): Tree crowns from dark to light.
        fields (Sequence[Colour]): Mean colours of crops.
        roofs (Sequence[Colour]): Colours of house roofs.
    """

    grass: Sequence[Colour]
    soil: Sequence[Colour]
    leaves: Sequence[Colour]
    fields: Sequence[Colour]
    roofs: Sequence[Colour]


TILE_ROOFS = (rgb(150, 92, 74), rgb(128, 78, 64), rgb(164, 112, 90), rgb(96, 84, 78), rgb(110, 106, 102))
SHINGLE_ROOFS = (rgb(98, 94, 92), rgb(122, 112, 102), rgb(138, 130, 122), rgb(84, 84, 88), rgb(150, 120, 100))
PALE_ROOFS = (rgb(196, 188, 174), rgb(178, 168, 150), rgb(206, 202, 196), rgb(168, 140, 112), rgb(150, 146, 140))

BIOMES = (
    Biome(
        (rgb(54, 68, 40), rgb(80, 96, 56), rgb(108, 118, 74)),
        (rgb(106, 90, 70), rgb(140, 122, 98), rgb(166, 150, 124)),
        (rgb(24, 36, 20), rgb(46, 62, 34), rgb(76, 94, 52)),
        (rgb(92, 108, 58), rgb(136, 132, 84), rgb(166, 150, 104), rgb(122, 104, 80), rgb(66, 88, 46)),
        TILE_ROOFS + SHINGLE_ROOFS,
    ),
    Biome(
        (rgb(54, 74, 44), rgb(76, 99, 57), rgb(101, 121, 72)),
        (rgb(112, 84, 64), rgb(146, 112, 84), rgb(172, 142, 112)),
        (rgb(18, 40, 22), rgb(36, 66, 34), rgb(66, 98, 48)),
        (rgb(74, 112, 50), rgb(106, 138, 66), rgb(148, 146, 88), rgb(132, 98, 72), rgb(56, 92, 50)),
        TILE_ROOFS + PALE_ROOFS,
    ),
    Biome(
        (rgb(112, 102, 72), rgb(144, 132, 96), rgb(170, 156, 118)),
        (rgb(148, 126, 98), rgb(182, 158, 124), rgb(206, 184, 152)),
        (rgb(44, 50, 32), rgb(70, 76, 48), rgb(100, 104, 70)),
        (rgb(176, 156, 116), rgb(196, 178, 138), rgb(120, 124, 76), rgb(154, 126, 92), rgb(92, 108, 60)),
        PALE_ROOFS + SHINGLE_ROOFS,
    ),
    Biome(
        (rgb(82, 80, 56), rgb(108, 104, 74), rgb(132, 124, 92)),
        (rgb(98, 84, 68), rgb(128, 112, 92), rgb(156, 140, 118)),
        (rgb(46, 40, 28), rgb(86, 70, 42), rgb(124, 98, 58)),
        (rgb(120, 100, 76), rgb(150, 132, 98), rgb(98, 100, 64), rgb(140, 116, 84), rgb(82, 76, 56)),
        SHINGLE_ROOFS + TILE_ROOFS,
    ),
)

ASPHALTS = (
    (rgb(66, 66, 67), rgb(84, 84, 84), rgb(100, 99, 97)),
    (rgb(88, 87, 85), rgb(108, 107, 104), rgb(124, 122, 118)),
    (rgb(112, 110, 106), rgb(130, 128, 123), rgb(146, 143, 137)),
)
CONCRETE = (rgb(138, 135, 128), rgb(160, 157, 149), rgb(178, 175, 167))
GRAVEL = (rgb(124, 117, 106), rgb(150, 142, 129), rgb(174, 166, 152))
SAND = (rgb(172, 156, 126), rgb(198, 183, 152), rgb(216, 204, 176))
DECK = (rgb(128, 114, 98), rgb(152, 140, 124), rgb(172, 162, 148))
WATERS = (
    (rgb(24, 44, 56), rgb(34, 58, 70), rgb(48, 74, 84)),
    (rgb(28, 52, 50), rgb(42, 70, 64), rgb(58, 86, 78)),
    (rgb(20, 50, 76), rgb(30, 68, 96), rgb(46, 88, 114)),
    (rgb(62, 74, 66), rgb(80, 92, 80), rgb(98, 108, 94)),
    (rgb(36, 46, 52), rgb(52, 62, 66), rgb(70, 80, 82)),
)
SHALLOWS = (rgb(86, 124, 122), rgb(90, 112, 96), rgb(74, 142, 148), rgb(126, 128, 106), rgb(92, 104, 100))

PAINT_WHITE = rgb(204, 203, 196)
PAINT_YELLOW = rgb(188, 160, 76)
GLASS = rgb(30, 34, 40)
CAR_COLOURS = (
    (rgb(226, 227, 226), 27),
    (rgb(34, 35, 38), 17),
    (rgb(96, 98, 101), 15),
    (rgb(166, 169, 172), 16),
    (rgb(54, 66, 94), 7),
    (rgb(132, 38, 36), 7),
    (rgb(142, 128, 108), 4),
    (rgb(70, 92, 122), 3),
    (rgb(52, 74, 60), 2),
    (rgb(194, 164, 60), 1),
    (rgb(178, 92, 48), 1),
)
CONTAINER_COLOURS = (
    rgb(148, 66, 54),
    rgb(62, 88, 124),
    rgb(70, 108, 96),
    rgb(186, 182, 174),
    rgb(176, 116, 62),
    rgb(104, 66, 58),
    rgb(120, 122, 124),
    rgb(52, 66, 90),
    rgb(188, 160, 84),
)
