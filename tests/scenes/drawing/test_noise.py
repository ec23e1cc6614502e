"""Noise and wave fields."""

from __future__ import annotations

import numpy as np
import pytest

from ds2d2_yolo.scenes.drawing.noise import blend_fields, fractal, ripple


@pytest.mark.parametrize("coarse", [1, 12, 300])
def test_fractal_has_the_stated_mean_and_deviation(coarse: int) -> None:
    field = fractal(np.random.default_rng(0), 640, coarse)
    assert field.shape == (640, 640)
    assert field.dtype == np.uint8
    assert abs(field.mean() - 128) < 2
    assert abs(field.std() - 48) < 4


def test_fractal_follows_the_generator_alone() -> None:
    first, again, other = (fractal(np.random.default_rng(seed), 96, 40) for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_coarser_field_changes_less_from_pixel_to_pixel() -> None:
    def step(coarse: float, gain: float) -> float:
        return float(np.abs(np.diff(fractal(np.random.default_rng(0), 256, coarse, gain).astype(int), axis=1)).mean())

    assert step(128, 0.4) < step(128, 0.9) / 2


def test_finest_leaves_out_the_small_octaves() -> None:
    smooth = fractal(np.random.default_rng(0), 256, 64, 0.9, finest=16)
    rough = fractal(np.random.default_rng(0), 256, 64, 0.9)
    assert np.abs(np.diff(smooth.astype(int))).max() < np.abs(np.diff(rough.astype(int))).max() / 2


def test_a_single_wave_has_the_stated_length() -> None:
    flat = np.full((512, 512), 0, np.uint8)
    wave = ripple(np.random.default_rng(0), flat, [32.0], 0.0, 0.0)
    spectrum = np.abs(np.fft.rfft(wave[100].astype(float) - wave[100].mean()))
    assert int(spectrum.argmax()) == 512 // 32
    assert np.array_equal(wave[0], wave[511])  # along the front nothing changes


def test_blend_is_linear_in_its_share() -> None:
    a, b = np.full((4, 4), 200, np.uint8), np.full((4, 4), 40, np.uint8)
    assert blend_fields(a, b, 0.25)[0, 0] == 160
