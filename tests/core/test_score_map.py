"""The score map against its definition, cell by cell."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ds2d2_yolo.core.disw import disw_map
from ds2d2_yolo.core.score_map import score_map
from ds2d2_yolo.core.wavelet import band_origin, band_shape


def by_hand(scores: np.ndarray, wavelet: str, weight: np.ndarray | float = 1.0) -> np.ndarray:
    """Mean of the samples in each cell of the band, cells located as `disw_map` locates them."""
    batch, height, width = scores.shape
    rows, columns = band_shape(height, width, wavelet)
    first = int(band_origin(wavelet, 1)[0])
    cells = np.zeros((batch, 1, rows, columns))
    for b, y, x in np.ndindex(batch, rows, columns):
        samples = [
            scores[b, i, j]
            for i in (first + 2 * y, first + 2 * y + 1)
            for j in (first + 2 * x, first + 2 * x + 1)
            if 0 <= i < height and 0 <= j < width
        ]
        cells[b, 0, y, x] = np.mean(samples) if samples else 0
    cells *= weight
    return cells / cells.mean()


@pytest.mark.parametrize("wavelet", ["haar", "db2", "sym4", "bior2.2"])
@pytest.mark.parametrize("shape", [(2, 6, 8), (3, 5, 7), (1, 1, 4), (2, 3, 1)])
def test_equals_its_definition(wavelet: str, shape: tuple[int, ...]) -> None:
    scores = np.random.default_rng(0).random(shape) ** 4
    actual = score_map(torch.from_numpy(scores), wavelet)
    assert actual.dtype == torch.float32
    np.testing.assert_allclose(actual, by_hand(scores, wavelet), rtol=1e-5, atol=1e-7)
    weight = 1 + np.random.default_rng(1).random(tuple(actual.shape))
    product = score_map(torch.from_numpy(scores), wavelet, torch.from_numpy(weight).float())
    np.testing.assert_allclose(product, by_hand(scores, wavelet, weight), rtol=1e-5, atol=1e-7)
    assert float(product.mean()) == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("wavelet", ["haar", "db2", "sym4", "bior2.2"])
def test_a_score_lies_where_a_box_around_it_does(wavelet: str) -> None:
    """Its cell is the one that DISW gives to a box inside the sample."""
    for y, x in ((0, 0), (3, 4), (6, 8)):
        scores = torch.zeros(1, 7, 9)
        scores[0, y, x] = 0.5
        box = torch.tensor([[8 * x + 3.0, 8 * y + 3.0, 8 * x + 5.0, 8 * y + 5.0]])
        touched = disw_map(box, torch.zeros(1), 1, band_shape(7, 9, wavelet), (16, 16), band_origin(wavelet, 8)) > 1
        assert torch.equal(score_map(scores, wavelet) > 0, touched)


def test_scale_of_the_scores_does_not_matter_and_none_gives_zero() -> None:
    scores = torch.rand(2, 6, 6)
    torch.testing.assert_close(score_map(1e-20 * scores), score_map(scores))
    assert not score_map(torch.zeros(2, 6, 6)).any()
    blank = scores.clone()
    blank[0] = 0
    assert not score_map(blank)[0].any()
    torch.testing.assert_close(score_map(blank)[1:], score_map(scores[1:]), msg="the other image counts as before")
    assert not score_map(scores.requires_grad_()).requires_grad


def test_half_precision_is_weighed_in_single() -> None:
    scores = torch.rand(1, 8, 8).half() * 1e-3
    torch.testing.assert_close(score_map(scores), score_map(scores.float()))


@pytest.mark.parametrize("shape", [(4,), (1, 1, 4, 4), (1, 0, 4), (0, 4, 4)])
def test_wrong_scores_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\(B, H, W\)"):
        score_map(torch.zeros(shape))


def test_wrong_weight_or_wavelet_is_refused() -> None:
    with pytest.raises(ValueError, match=r"weight must be \(1, 1, 2, 2\)"):
        score_map(torch.ones(1, 4, 4), "haar", torch.ones(1, 1, 4, 4))
    with pytest.raises(ValueError, match="not a discrete wavelet"):
        score_map(torch.ones(1, 4, 4), "morl")


def test_device_and_dtype(device: torch.device, dtype: torch.dtype) -> None:
    scores = torch.linspace(0, 1, 35, device=device, dtype=dtype).view(1, 5, 7)
    weight = score_map(scores)
    assert (weight.dtype, weight.device.type, weight.shape) == (torch.float32, device.type, (1, 1, 3, 4))
    assert weight.mean().item() == pytest.approx(1, rel=1e-5)
