"""The explicit stream: wavelet-decoupled feature distillation, weighted by DISW (arXiv 2512.04413)."""

from __future__ import annotations

import torch
from torch import Tensor

from ds2d2_yolo.core.haar_energy import HaarEnergy
from ds2d2_yolo.core.losses.implicit import _check_same
from ds2d2_yolo.core.robust import channel_scale, robust_energies
from ds2d2_yolo.core.wavelet import band_shape, check_map, dwt2, is_haar


def explicit_loss(
    student: Tensor,
    teacher: Tensor,
    weight: Tensor,
    wavelet: str = "haar",
    norm: str = "none",
    robust: bool = False,
    counted: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the explicit distillation terms of one level.

    With D = student - teacher, transformed once: ``low = mean(W LL(D)^2)`` and ``high`` = the mean over the three bands
    of ``W {LH, HL, HH}(D)^2``. The terms of a model are the sums over its levels.

    Neither option is part of the published method. With ``norm="channel"`` D is divided by the teacher's standard
    deviation of each channel, at least 1 % of the largest one, 1 where the whole teacher is constant. With ``robust``
    a square x^2 becomes ``2 d^2 (sqrt(1 + (x / d)^2) - 1)``: x^2 for small x, 2 d |x| for large. Here d is the root
    mean square of the teacher's own coefficients after ``norm``, of LL for the low and of LH, HL, HH for the high term,
    in the median image of the batch.

    Args:
        student (torch.Tensor): Adapted student feature A S, shape (B, C, H, W).
        teacher (torch.Tensor): Teacher feature T, shape (B, C, H, W); gets no gradient.
        weight (torch.Tensor): Weight map of ``disw_map``, shape (B, 1, h, w) with the (h, w) of ``band_shape``.
        wavelet (str): Any name of ``pywt.wavelist(kind="discrete")``. Haar with squares is the fast path: it keeps
            its inputs for the backward pass, and on a CPU the memory of the gradient (`haar_energy.HaarEnergy`). It and
            ``robust`` are differentiable once.
        norm (str): 'none', or 'channel'.
        robust (bool): Whether large coefficients count linearly.
        counted (torch.Tensor, optional): B bool, the images that ``norm`` and ``robust`` take the teacher's own size
            from; all without it. One that is left out has to have a weight of 0.

    Returns:
        low (torch.Tensor): Scalar of the low band.
        high (torch.Tensor): Scalar of the three high bands.

    Raises:
        ValueError: If the shapes do not fit together or ``norm`` is neither 'none' nor 'channel'.
    """
    _check_same(student, teacher, "features")
    check_map(student)
    expected = (student.shape[0], 1, *band_shape(student.shape[2], student.shape[3], wavelet))
    if weight.shape != expected:
        raise ValueError(f"weight must be {expected} for these features and {wavelet}, got {tuple(weight.shape)}")
    if norm not in ("none", "channel"):
        raise ValueError(f"norm must be 'none' or 'channel', got {norm!r}")
    teacher, weight = teacher.detach(), weight.detach()
    if not torch.is_grad_enabled():  # autograd functions would prepare for a gradient of a leaf all the same
        student = student.detach()
    dtype = torch.promote_types(torch.promote_types(student.dtype, teacher.dtype), torch.float32)
    with torch.autocast(student.device.type, enabled=False):
        scale = channel_scale(teacher, dtype, counted) if norm == "channel" else None
        if robust:
            return robust_energies(student, teacher, weight.to(dtype), scale, wavelet, counted)
        if is_haar(wavelet) and not torch.compiler.is_compiling():
            return HaarEnergy.apply(student, teacher, weight.to(dtype), scale)  # type: ignore[no-any-return]
        difference = student.to(dtype) - teacher.to(dtype)
        low, high = dwt2(difference if scale is None else difference * scale, wavelet)
        weight = weight.to(dtype)
        return (weight * low.square()).mean(), (weight.unsqueeze(2) * high.square()).mean()
