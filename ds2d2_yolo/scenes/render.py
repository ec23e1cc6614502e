"""Draws one scene from its seed and renders it as a photograph: air, optics and sensor."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ds2d2_yolo.scenes.drawing import palette
from ds2d2_yolo.scenes.drawing.noise import U8, fractal
from ds2d2_yolo.scenes.places.airfield import aerodrome, airport
from ds2d2_yolo.scenes.places.harbour import marina, port
from ds2d2_yolo.scenes.places.land import COMMERCE, INDUSTRY, MIXED, SPORTS, SUBURB, TANKS, country, town
from ds2d2_yolo.scenes.places.shore import coast
from ds2d2_yolo.scenes.world import Label, World

KINDS = (
    "commerce",
    "port",
    "sports",
    "airport",
    "tanks",
    "suburb",
    "coast",
    "aerodrome",
    "sports",
    "industry",
    "marina",
    "country",
    "tanks",
    "commerce",
    "airport",
    "sports",
    "mixed",
    "port",
    "suburb",
    "coast",
)
SCALES = {  # range of the ground sample distance in metres per pixel
    "commerce": (0.15, 0.40),
    "suburb": (0.17, 0.42),
    "sports": (0.25, 0.75),
    "tanks": (0.35, 0.95),
    "industry": (0.22, 0.55),
    "mixed": (0.20, 0.50),
    "country": (0.25, 0.60),
    "port": (0.35, 0.85),
    "marina": (0.16, 0.42),
    "coast": (0.35, 1.10),
    "airport": (0.50, 1.10),
    "aerodrome": (0.22, 0.55),
}


def draw_scene(seed: int, split: int, index: int, imgsz: int = 640) -> tuple[U8, list[Label]]:
    """Draw one aerial scene.

    The index selects the kind of scene in turn, so that even a small set has every kind; the seed determines all else.

    Args:
        seed (int): Seed of the data set, 0 or more.
        split (int): Number of the split (0 train, 1 val).
        index (int): Number of the image in its split.
        imgsz (int): Side of the image in pixels, a multiple of 4.

    Returns:
        image (np.ndarray): BGR image of shape (imgsz, imgsz, 3), uint8.
        labels (list[tuple[int, np.ndarray]]): Class and the four corners (4, 2) in pixels of every object.
    """
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, split, index])))
    kind = KINDS[index % len(KINDS)]
    low, high = SCALES[kind]
    gsd = low * (high / low) ** float(rng.random())
    world = World(rng, imgsz, gsd)
    world.prepare()
    _lay_out(world, kind)
    world.finish()
    return photograph(world), world.labels


def _lay_out(world: World, kind: str) -> None:
    """Draw the scene of a kind."""
    towns = {
        "commerce": (COMMERCE, (70.0, 130.0), 0.08, (14.0, 50.0)),
        "suburb": (SUBURB, (50.0, 90.0), 0.05, (20.0, 70.0)),
        "sports": (SPORTS, (80.0, 230.0), 0.08, (20.0, 70.0)),
        "tanks": (TANKS, (130.0, 300.0), 0.5, (50.0, 160.0)),
        "industry": (INDUSTRY, (80.0, 160.0), 0.45, (20.0, 70.0)),
        "mixed": (MIXED, (70.0, 150.0), 0.2, (16.0, 60.0)),
    }
    scenes = {
        "country": country,
        "port": port,
        "marina": marina,
        "coast": coast,
        "airport": airport,
        "aerodrome": aerodrome,
    }
    if kind in towns:
        town(world, *towns[kind])
    else:
        scenes[kind](world)


def photograph(world: World) -> U8:
    """Return the finished canvas as seen through air, optics and sensor, at the final size."""
    size = world.size
    small = cv2.resize(world.canvas.image, (size, size), interpolation=cv2.INTER_AREA)
    sigma = world.uniform(0.35, 0.75)
    small = cv2.GaussianBlur(small, (5, 5), sigma)
    grain = world.fine.astype(np.int32) - 128
    light = small.astype(np.int32)
    light += (light * grain[:, :, None]) >> 11
    light = _air(world, light)
    return _sense(world, light)


def _air(world: World, light: NDArray[np.int32]) -> NDArray[np.int32]:
    """Add haze, thicker in places, the fall-off towards the corners, the camera's exposure and colour cast."""
    size = world.size
    haze = world.uniform(0.02, 0.10) if world.chance(0.75) else world.uniform(0.10, 0.28)
    veil = fractal(world.rng, size, size, 0.4, finest=32).astype(np.int32)
    weight = (round(haze * 256) * (384 + veil) // 512)[:, :, None]
    sky = np.array(palette.rgb(*(world.uniform(a, b) for a, b in ((166, 186), (178, 194), (192, 210)))), np.int32)
    light = light + (((sky - light) * weight) >> 8)
    axis = np.arange(size, dtype=np.int32) * 2 - size
    if world.chance(0.1):
        cloud = (fractal(world.rng, size, size / 2, 0.5, finest=8).astype(np.int32) - 140).clip(0, 60)
        light = light * (256 - cloud * 5 // 4)[:, :, None] >> 8
    fall = (axis[:, None] ** 2 + axis[None, :] ** 2) * round(world.uniform(0, 0.22) * 256) // (2 * size * size)
    light = light * (256 - fall)[:, :, None] >> 8
    grey = (light[:, :, :1] + 2 * light[:, :, 1:2] + light[:, :, 2:]) >> 2
    light = grey + ((light - grey) * round(world.uniform(0.6, 0.92) * 256) >> 8)
    return _expose(world, light)


def _expose(world: World, light: NDArray[np.int32]) -> NDArray[np.int32]:
    """Bring the picture to a chosen mean brightness, contrast and warmth, as camera and developer do."""
    mean = max(1, int(light.sum()) // light.size)
    target, contrast = world.uniform(94, 132), world.uniform(0.95, 1.3)
    gain = min(1.7, max(0.8, target / mean)) * contrast
    warm = world.uniform(-0.035, 0.045)
    tints = np.array([round(256 * gain * (1 + t)) for t in (-warm, world.uniform(-0.005, 0.015), warm)], np.int32)
    return _film(round(target) + ((light - mean) * tints >> 8))


def _film(light: NDArray[np.int32]) -> NDArray[np.int32]:
    """Bend the ends of the scale like film, so that white roofs and deep shadows keep their texture."""
    levels = np.arange(-512, 1024, dtype=np.float64)
    high, low = np.maximum(levels - 205, 0), np.maximum(34 - levels, 0)
    table = levels - high + 44 * high / (high + 44) + low - 26 * low / (low + 26)
    film: NDArray[np.int32] = np.rint(table).astype(np.int32)[np.clip(light, -512, 1023) + 512]
    return film


def _sense(world: World, light: NDArray[np.int32]) -> U8:
    """Add shot and read noise, the sum of four uniform numbers scaled by the brightness, and clip."""
    strength = world.uniform(0.25, 1.1)
    parts = world.rng.integers(0, 256, (4, *light.shape), dtype=np.uint8)
    noise = parts.astype(np.int16).sum(axis=0, dtype=np.int16).astype(np.int32) - 510
    scale = (light.clip(0, 255) * 6 + 900) * round(strength * 100) // 100
    image: U8 = np.clip(light + ((noise * scale) >> 16), 0, 255).astype(np.uint8)
    return image
