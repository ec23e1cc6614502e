"""One-level two-dimensional discrete wavelet transform of feature maps.

This is the spectral decoupling of DS2D2 (arXiv 2512.04413), whose published code uses the Haar wavelet (Haar 1910).
Bands, order and signs are those of ``pywt.dwt2(x, wavelet, mode="zero")``: ``(cA, (cH, cV, cD)) = (LL, (LH, HL, HH))``
(PyWavelets: Lee et al., JOSS 4(36), 1237, 2019). The first letter of a band names the filter along the width, the
second the filter along the height.
"""

from __future__ import annotations

import pywt
import torch
import torch.nn.functional as F
from torch import Tensor

from ds2d2_yolo.core.checks import check_feature_map
from ds2d2_yolo.core.transfer import copy_to_device

_HAAR_NAMES = frozenset({"haar", "db1", "bior1.1", "rbio1.1"})
# Low-pass and high-pass decomposition filters, outermost tap first. `torch.compile` cannot trace PyWavelets itself.
_FILTERS = {
    name: (tuple(map(float, bank.dec_lo)), tuple(map(float, bank.dec_hi)))
    for name in pywt.wavelist(kind="discrete")
    for bank in (pywt.Wavelet(name),)
}


def _filters(wavelet: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the low-pass and high-pass decomposition filters of a discrete wavelet."""
    if wavelet not in _FILTERS:
        raise ValueError(
            f"wavelet={wavelet!r} is not a discrete wavelet; name one of pywt.wavelist(kind='discrete'), such as 'haar'"
        )
    return _FILTERS[wavelet]


def filter_length(wavelet: str = "haar") -> int:
    """Return the number of taps L of a wavelet's decomposition filters (2 for Haar).

    Args:
        wavelet (str): Any name of ``pywt.wavelist(kind="discrete")``.

    Returns:
        (int): L, always even.

    Raises:
        ValueError: If the wavelet is not a discrete one.

    Examples:
        >>> filter_length("haar"), filter_length("db2")
        (2, 4)
    """
    return 2 if is_haar(wavelet) else len(_filters(wavelet)[0])


def is_haar(wavelet: str) -> bool:
    """Return whether a name is one of those under which PyWavelets knows the Haar wavelet.

    Args:
        wavelet (str): Name of a wavelet.

    Returns:
        (bool): True for haar, db1, bior1.1 and rbio1.1.

    Examples:
        >>> is_haar("db1"), is_haar("db2")
        (True, False)
    """
    return wavelet in _HAAR_NAMES


def band_shape(h: int, w: int, wavelet: str = "haar") -> tuple[int, int]:
    """Return the height and width of the four bands of an h x w map: ``(side + L - 1) // 2``.

    Args:
        h (int): Height of the feature map.
        w (int): Width of the feature map.
        wavelet (str): Any name of ``pywt.wavelist(kind="discrete")``.

    Returns:
        (tuple[int, int]): Height and width of each band; ceil(h / 2) and ceil(w / 2) for Haar.

    Raises:
        ValueError: If the wavelet is not a discrete one.

    Examples:
        >>> band_shape(7, 10), band_shape(7, 10, "db2")
        ((4, 5), (5, 6))
    """
    taps = filter_length(wavelet)
    return (h + taps - 1) // 2, (w + taps - 1) // 2


def band_origin(wavelet: str, stride: float) -> tuple[float, float]:
    """Return the pixel (y, x) of the upper left corner of the band's grid: ``(1 - L / 2) * stride``.

    Coefficient k of an L-tap filter covers the samples 2k + 2 - L .. 2k + 1. Its cell, two samples wide, lies in the
    middle of them. The grid of a longer filter therefore starts outside the image.

    Args:
        wavelet (str): Any name of ``pywt.wavelist(kind="discrete")``.
        stride (float): Pixels per sample of the feature map.

    Returns:
        (tuple[float, float]): Origin (y, x) in pixels, (0.0, 0.0) for Haar.

    Raises:
        ValueError: If the wavelet is not a discrete one.

    Examples:
        >>> band_origin("haar", 8), band_origin("db2", 8)
        ((0.0, 0.0), (-8.0, -8.0))
    """
    origin = (1 - filter_length(wavelet) / 2) * float(stride)
    return origin, origin


def _haar_corners(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the samples a, b, c, d of every 2 x 2 block ``[[a b], [c d]]``; odd sides get one zero row or column."""
    h, w = x.shape[-2:]
    if h % 2 or w % 2:
        x = F.pad(x, (0, w % 2, 0, h % 2))
    return x[..., ::2, ::2], x[..., ::2, 1::2], x[..., 1::2, ::2], x[..., 1::2, 1::2]


def _haar_dwt2(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return LL and (LH, HL, HH) of the Haar wavelet, by sums and differences of rows, then of columns."""
    a, b, c, d = _haar_corners(x)
    top, bottom, top_diff, bottom_diff = a + b, c + d, a - b, c - d
    low = (top + bottom) / 2
    high = torch.stack(((top - bottom) / 2, (top_diff + bottom_diff) / 2, (top_diff - bottom_diff) / 2), 2)
    return low, high


def _filter_dwt2(x: Tensor, wavelet: str) -> tuple[Tensor, Tensor]:
    """Return LL and (LH, HL, HH) of any discrete wavelet, by separable convolutions with its filter bank."""
    batch, channels, height, width = x.shape
    low_pass, high_pass = _filters(wavelet)
    taps = len(low_pass)
    # A convolution by the filter is a correlation by the flipped filter.
    bank = copy_to_device(torch.tensor((low_pass[::-1], high_pass[::-1]), dtype=x.dtype), x.device)
    # Output k reads samples 2k + 2 - taps .. 2k + 1, zeros outside the map.
    h, w = (height + taps - 1) // 2, (width + taps - 1) // 2
    x = x.reshape(batch * channels, 1, height, width)
    x = F.pad(x, (taps - 2, 2 * w - width, taps - 2, 2 * h - height))
    rows = F.conv2d(x, bank.view(2, 1, 1, taps), stride=(1, 2))
    bands = F.conv2d(rows.reshape(batch * channels * 2, 1, -1, w), bank.view(2, 1, taps, 1), stride=(2, 1))
    # Axes 2 and 3: filter along the width, filter along the height.
    bands = bands.reshape(batch, channels, 2, 2, h, w)
    high = torch.stack((bands[:, :, 0, 1], bands[:, :, 1, 0], bands[:, :, 1, 1]), 2)
    return bands[:, :, 0, 0], high


def dwt2(x: Tensor, wavelet: str = "haar") -> tuple[Tensor, Tensor]:
    """Transform a feature map by one level of a discrete wavelet, with zeros outside the map.

    For Haar and each 2 x 2 block ``[[a b], [c d]]``: ``LL = (a + b + c + d) / 2``, ``LH = (a + b - c - d) / 2``,
    ``HL = (a - b + c - d) / 2``, ``HH = (a - b - c + d) / 2``. In general band sample k is
    ``sum_j f[j] x[2k + 1 - j]`` along each axis, where f is the low-pass or the high-pass decomposition filter.
    The computation runs in the dtype of ``x``: pass float32 where float16 would overflow (LL doubles magnitudes).

    Source: spectral decoupling of DS2D2, arXiv 2512.04413; ``pywt.dwt2`` with ``mode="zero"``.

    Args:
        x (torch.Tensor): Feature map of shape (B, C, H, W).
        wavelet (str): Any name of ``pywt.wavelist(kind="discrete")``.

    Returns:
        low (torch.Tensor): LL band, shape (B, C, h, w), see ``band_shape``.
        high (torch.Tensor): LH, HL and HH bands, shape (B, C, 3, h, w).

    Raises:
        ValueError: If the shape or the wavelet is not a valid one.
        TypeError: If ``x`` is not floating point.

    Examples:
        >>> low, high = dwt2(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]))
        >>> low.item(), high.flatten().tolist()
        (5.0, [-2.0, -1.0, 0.0])
    """
    check_feature_map(x)
    return _haar_dwt2(x) if is_haar(wavelet) else _filter_dwt2(x, wavelet)


def high_frequency(x: Tensor, wavelet: str = "haar") -> Tensor:
    """Return the high-frequency part of a feature map at the map's resolution, the input of the amplifier.

    ``hf(x) = resize(LH + HL + HH)``: bilinear, ``align_corners=False``, to H x W.

    The bands of a wavelet longer than Haar reach beyond the map, and resizing squeezes that margin into it. Near the
    border of a map of 20 x 20 the centre of a detail moves towards the middle by half a cell with Haar, 2 to 3 cells
    with sym4, bior4.4 and db4, and about 5 with db8. Student and teacher are displaced alike, but the amplifier has to
    predict its boxes from displaced details.

    Source: input of the high-frequency amplifier of DS2D2, arXiv 2512.04413.

    Args:
        x (torch.Tensor): Feature map of shape (B, C, H, W). The computation runs in its dtype; pass float32.
        wavelet (str): Any name of ``pywt.wavelist(kind="discrete")``.

    Returns:
        (torch.Tensor): High-frequency map of shape (B, C, H, W).

    Raises:
        ValueError: If the shape or the wavelet is not a valid one.
        TypeError: If ``x`` is not floating point.

    Examples:
        >>> high_frequency(torch.tensor([[[[4.0, 0.0], [0.0, 0.0]]]])).flatten()
        tensor([6., 6., 6., 6.])
    """
    check_feature_map(x)
    if is_haar(wavelet):
        # LH + HL + HH = 2a - LL, as differences: an offset shared by the block cancels without rounding.
        a, b, c, d = _haar_corners(x)
        band = ((a - b) + (a - c) + (a - d)) / 2
    else:
        band = _filter_dwt2(x, wavelet)[1].sum(2)
    return F.interpolate(band, size=x.shape[-2:], mode="bilinear", align_corners=False)
