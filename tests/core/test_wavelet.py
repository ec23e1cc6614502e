"""The transform against PyWavelets, its geometry and its errors."""

from __future__ import annotations

import numpy as np
import pytest
import pywt
import torch
from hypothesis import given
from hypothesis import strategies as st

from ds2d2_yolo.core.wavelet import band_origin, band_shape, dwt2, filter_length, high_frequency

DISCRETE = pywt.wavelist(kind="discrete")
SIDES = [(8, 10), (7, 9), (8, 5), (1, 1), (1, 6)]


def relative_error(actual: np.ndarray, expected: np.ndarray) -> float:
    """Largest absolute error over the largest absolute value."""
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


def test_textbook_block() -> None:
    low, high = dwt2(torch.tensor([[[[1.0, 2.0], [3.0, 5.0]]]]))
    assert low.item() == 5.5
    assert high.flatten().tolist() == [-2.5, -1.5, 0.5]


@pytest.mark.parametrize("wavelet", DISCRETE)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
def test_bands_equal_pywavelets(wavelet: str, dtype: torch.dtype, tolerance: float) -> None:
    rng = np.random.default_rng(0)
    for side in SIDES:
        x = torch.from_numpy(rng.standard_normal((2, 3, *side))).to(dtype)
        low, high = dwt2(x, wavelet)
        expected_low, expected_high = pywt.dwt2(x.double().numpy(), wavelet, mode="zero")
        assert low.dtype == high.dtype == dtype
        expected = np.concatenate((expected_low[:, :, None], np.stack(expected_high, 2)), 2)
        assert relative_error(torch.cat((low.unsqueeze(2), high), 2).numpy(), expected) <= tolerance
        assert tuple(low.shape[2:]) == band_shape(*side, wavelet)


@pytest.mark.parametrize("name", ["haar", "db1", "bior1.1", "rbio1.1"])
def test_fast_path_serves_every_name_of_haar(name: str) -> None:
    bank = pywt.Wavelet(name)
    np.testing.assert_allclose(bank.dec_lo, pywt.Wavelet("haar").dec_lo, atol=1e-15)
    np.testing.assert_allclose(bank.dec_hi, pywt.Wavelet("haar").dec_hi, atol=1e-15)
    assert filter_length(name) == bank.dec_len == 2


@pytest.mark.parametrize("wavelet", ["haar", "db2", "bior3.5", "sym8"])
def test_cells_lie_over_what_their_coefficients_read(wavelet: str) -> None:
    stride = 8.0
    size = 24
    top, left = band_origin(wavelet, stride)
    taps = filter_length(wavelet)
    assert (top, left) == ((1 - taps / 2) * stride,) * 2
    for k in range(band_shape(size, size, wavelet)[0]):
        x = torch.zeros(1, 1, size, size, dtype=torch.float64)
        reached = []
        for sample in range(size):
            x.zero_()[..., sample, :] = 1
            low, high = dwt2(x, wavelet)
            if max(low[..., k, :].abs().max().item(), high[..., k, :].abs().max().item()) > 1e-15:
                reached.append(sample)
        # Biorthogonal banks pad their filters with zeros: nothing is read outside the interval.
        assert set(reached) <= set(range(2 * k + 2 - taps, 2 * k + 2))
        middle_of_cell = top + (k + 0.5) * 2 * stride
        assert middle_of_cell == pytest.approx((2 * k + 2 - taps / 2) * stride)


@pytest.mark.parametrize("wavelet", ["haar", "db3"])
@pytest.mark.parametrize("side", [(8, 10), (7, 9)])
def test_high_frequency_is_the_resized_sum_of_bands(wavelet: str, side: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *side, dtype=torch.float64)
    band = dwt2(x, wavelet)[1].sum(2)
    expected = torch.nn.functional.interpolate(band, size=side, mode="bilinear", align_corners=False)
    torch.testing.assert_close(high_frequency(x, wavelet), expected, rtol=1e-12, atol=1e-12)


def test_high_frequency_of_an_offset_is_exactly_zero() -> None:
    assert high_frequency(torch.full((1, 1, 6, 8), 100.1)).abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_works_in_the_dtype_given(dtype: torch.dtype) -> None:
    x = torch.randn(1, 2, 6, 7).to(dtype)
    low, high = dwt2(x)
    assert low.dtype == high.dtype == high_frequency(x).dtype == dtype


@given(st.integers(1, 12), st.integers(1, 12), st.sampled_from(["haar", "db2", "db4", "coif1"]))
def test_orthogonal_transform_keeps_the_energy(height: int, width: int, wavelet: str) -> None:
    """Parseval's identity: the zero-padded map and its bands have one sum of squares."""
    x = torch.randn(1, 2, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    low, high = dwt2(x, wavelet)
    energy = low.square().sum() + high.square().sum()
    torch.testing.assert_close(energy, x.square().sum(), rtol=1e-9, atol=0)


@pytest.mark.parametrize("wavelet", ["haar", "db2"])
def test_transform_is_linear(wavelet: str) -> None:
    x, y = torch.randn(2, 1, 2, 7, 6, dtype=torch.float64)
    parts = zip(dwt2(0.3 * x - 2 * y, wavelet), dwt2(x, wavelet), dwt2(y, wavelet), strict=True)
    for mixed, one, two in parts:
        torch.testing.assert_close(mixed, 0.3 * one - 2 * two, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("wavelet", ["haar", "db2"])
def test_device_and_dtype(wavelet: str, device: torch.device, dtype: torch.dtype) -> None:
    x = torch.linspace(-1, 1, 84, device=device).view(1, 2, 6, 7).to(dtype)
    low, high = dwt2(x, wavelet)
    for result in (low, high, high_frequency(x, wavelet)):
        assert (result.dtype, result.device.type) == (dtype, device.type)
        assert torch.isfinite(result).all()
    h, w = band_shape(6, 7, wavelet)
    assert (low.shape, high.shape) == ((1, 2, h, w), (1, 2, 3, h, w))


@pytest.mark.parametrize("wavelet", ["haar", "bior2.2"])
def test_gradcheck(wavelet: str) -> None:
    x = torch.randn(1, 2, 5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: dwt2(x, wavelet), x)
    assert torch.autograd.gradcheck(lambda x: high_frequency(x, wavelet), x)


@pytest.mark.parametrize(
    ("x", "wavelet", "error", "message"),
    [
        (torch.zeros(1, 1, 4, 4), "morl", ValueError, "'morl' is not a discrete wavelet"),
        (torch.zeros(1, 4, 4), "haar", ValueError, "shape \\(B, C, H, W\\)"),
        (torch.zeros(1, 1, 0, 4), "haar", ValueError, "at least one row"),
        (torch.zeros(1, 1, 4, 4, dtype=torch.int64), "haar", TypeError, "floating-point"),
    ],
)
def test_errors(x: torch.Tensor, wavelet: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        dwt2(x, wavelet)
    with pytest.raises(error, match=message):
        high_frequency(x, wavelet)
