"""Drawing in continuous pixel coordinates."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from ds2d2_yolo.scenes.drawing.canvas import Canvas, fill_convex, fill_disc, strip


def coverage(mask: np.ndarray) -> np.ndarray:
    """Return a supersampled mask as the share of each final pixel."""
    return cv2.resize(mask, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA).astype(float) / 255


@pytest.mark.parametrize("angle", [0.0, 0.4, 1.1])
@pytest.mark.parametrize("shift", [0.0, 0.3, 0.8])
def test_a_polygon_is_centred_where_its_coordinates_say(angle: float, shift: float) -> None:
    mask = np.zeros((128, 128), np.uint8)
    c, s = math.cos(angle), math.sin(angle)
    square = np.array([[-9, -5], [9, -5], [9, 5], [-9, 5]]) @ np.array([[c, s], [-s, c]]) + 32 + shift
    fill_convex(mask, square, 255)
    share = coverage(mask)
    centres = np.arange(64) + 0.5  # the centre of pixel 0 lies at 0.5
    assert abs((share.sum(axis=0) @ centres) / share.sum() - 32 - shift) < 0.3
    assert abs((share.sum(axis=1) @ centres) / share.sum() - 32 - shift) < 0.3


def test_a_disc_covers_its_area() -> None:
    mask = np.zeros((128, 128), np.uint8)
    fill_disc(mask, np.array([31.7, 32.2]), 12.0, 255)
    assert coverage(mask).sum() == pytest.approx(math.pi * 144, rel=0.03)


def test_a_strip_has_its_width_everywhere() -> None:
    path = np.array([[0.0, 0.0], [20.0, 0.0], [40.0, 0.0]])
    for quad in strip(path, 6.0):
        assert quad[:, 1].min() == pytest.approx(-3)
        assert quad[:, 1].max() == pytest.approx(3)


def test_glaze_blends_by_its_share_in_thin_and_in_full_windows() -> None:
    full, thin = Canvas(64), Canvas(64)
    full.glaze([np.array([[0, 0], [64, 0], [64, 64], [0, 64]], float)], (200, 100, 40), 0.5)
    thin.glaze([np.array([[0, 0], [64, 62], [64, 64]], float)], (200, 100, 40), 0.5)
    assert full.image[64, 64].tolist() == pytest.approx([100, 50, 20], abs=2)
    assert thin.image[124, 126].tolist() == full.image[64, 64].tolist()
    assert not thin.image[10, 100].any()


def test_a_polygon_outside_the_picture_changes_nothing() -> None:
    canvas = Canvas(64)
    canvas.glaze([np.array([[100, 100], [120, 100], [120, 120]], float)], (255, 255, 255), 1.0)
    canvas.textured([np.array([[-50, -50], [-20, -50], [-20, -20]], float)], np.full_like(canvas.image, 255))
    assert not canvas.image.any()


def test_overlapping_polygons_do_not_cancel_out() -> None:
    masked = Canvas(64).mask_of([np.array([[8, 8], [40, 8], [40, 40], [8, 40]], float)] * 2)
    assert masked is not None
    assert (masked[0][8:60, 8:60] == 255).all()
