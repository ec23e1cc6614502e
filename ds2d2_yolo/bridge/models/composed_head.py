"""A frozen head on adapted student features, composed with the adapter where that takes fewer operations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from ultralytics.nn.modules.conv import Conv

if TYPE_CHECKING:
    from ultralytics.nn.modules.head import Detect


@dataclass(frozen=True)
class FirstConvolutions:
    """The dense first convolutions of the branches of one level, computed as one convolution.

    Attributes:
        names (tuple[str, ...]): The branches that begin with one of them; other branches begin with another layer.
        convolutions (tuple[Conv, ...]): One for each name, folded.
        tails (tuple[nn.Module, ...]): The remaining layers of each branch.
    """

    names: tuple[str, ...]
    convolutions: tuple[Conv, ...]
    tails: tuple[nn.Module, ...]

    @property
    def widths(self) -> list[int]:
        """(list[int]): Output channels of each convolution."""
        return [c.conv.out_channels for c in self.convolutions]

    def forward(self, x: Tensor, adapter: Tensor) -> dict[str, Tensor]:
        """Return the outputs of the branches for the adapted x, with the product `W A` as the kernel.

        Args:
            x (Tensor): Student feature, B x Cs x H x W.
            adapter (Tensor): Weight of the level's adapter, Ct x Cs x 1 x 1.

        Returns:
            (dict[str, Tensor]): By branch.
        """
        block = self.convolutions[0]
        first: Any = block.conv
        # the product is cheap, and half precision would lose digits of it
        with torch.autocast(x.device.type, enabled=False):
            weight = torch.cat([c.conv.weight for c in self.convolutions]).to(adapter.dtype)
            weight = torch.einsum("otij,ts->osij", weight, adapter.flatten(1))
        bias = torch.cat([c.conv.bias for c in self.convolutions]).to(adapter.dtype)
        y = F.conv2d(x, weight, bias, first.stride, first.padding, first.dilation)
        # one activation for all parts: Ultralytics' activations work in place
        parts = torch.split(block.act(y), self.widths, 1)
        return {name: tail(part) for name, tail, part in zip(self.names, self.tails, parts, strict=True)}


class AdaptedHead:
    """Raw predictions of a frozen head on ``A S``, for student features S and adapters A.

    An adapter is a 1 x 1 convolution without bias, so a convolution behind it is one convolution of S, whose kernel is
    the product of both: ``W * (A S) = (W A) * S``, borders included. It is as exact, and cheaper where the teacher has
    more channels than the student and the feature is large (`composing_saves`). Branches that begin with another layer,
    such as the depthwise convolutions of YOLO11, take the adapted feature.

    Args:
        head (Detect): Head from `heads.take_levels`, folded.
    """

    def __init__(self, head: Detect) -> None:
        self.head = head
        self._branches: dict[str, Any] = {name: b for name, b in head.one2many.items() if b is not None}
        self._first = [self._first_convolutions(level) for level in range(head.nl)]

    def __call__(
        self, features: Sequence[Tensor], adapters: Sequence[Tensor], adapted: Sequence[Tensor] | None = None
    ) -> dict[str, Any]:
        """Return the raw predictions.

        Args:
            features (Sequence[Tensor]): S of each level, B x Cs x H x W.
            adapters (Sequence[Tensor]): Weight of each level's adapter, Ct x Cs x 1 x 1.
            adapted (Sequence[Tensor] | None): A S of each level if it is already computed.

        Returns:
            (dict[str, Any]): See `heads.raw_predictions`; 'feats' are the student's.
        """
        adapted_or_none: Sequence[Tensor | None] = adapted or [None] * len(features)
        levels = [self._level(i, *each) for i, each in enumerate(zip(features, adapters, adapted_or_none, strict=True))]
        # the head joins the outputs of its branches, which are computed already
        done = {name: [_Constant(outputs[name]) for outputs in levels] for name in self._branches}
        predictions: dict[str, Any] = self.head.forward_head(list(features), **done)
        return predictions

    def _level(self, level: int, x: Tensor, adapter: Tensor, adapted: Tensor | None) -> dict[str, Tensor]:
        """Return the output of each branch on one level."""
        first = self._first[level]
        outputs = first.forward(x, adapter) if first.names and composing_saves(x, adapter) else {}
        if len(outputs) < len(self._branches):
            adapted = F.conv2d(x, adapter) if adapted is None else adapted
            outputs |= {n: branch[level](adapted) for n, branch in self._branches.items() if n not in outputs}
        return outputs

    def _first_convolutions(self, level: int) -> FirstConvolutions:
        """Return the dense first convolutions of the branches of a level that have one form."""
        at = {name: branch[level] for name, branch in self._branches.items() if _begins_dense(branch[level])}
        forms = {name: _form(branch[0]) for name, branch in at.items()}
        names = [name for name, form in forms.items() if form == next(iter(forms.values()))]
        return FirstConvolutions(tuple(names), tuple(at[n][0] for n in names), tuple(at[n][1:] for n in names))


class _Constant:
    """A branch whose output is computed already."""

    def __init__(self, output: Tensor) -> None:
        self.output = output

    def __call__(self, _: Tensor) -> Tensor:
        """Return the output."""
        return self.output


def composing_saves(x: Tensor, adapter: Tensor) -> bool:
    """Return whether one convolution with the product takes fewer operations than adapter and convolution.

    For each cell of the kernel and each output channel, with n = B H W cells, Cs and Ct channels: forward pass and
    gradient of the adapted feature are ``2 n Ct`` multiplications; those of S and the gradient of the product are
    ``3 n Cs``, the product itself and the adapter's gradient ``2 Ct Cs``.

    Args:
        x (Tensor): Student feature, B x Cs x H x W.
        adapter (Tensor): Weight of its adapter, Ct x Cs x 1 x 1.

    Returns:
        (bool): False for a teacher with less than 1.5 times the student's channels.
    """
    wide, narrow = adapter.shape[:2]
    cells = x.shape[0] * x.shape[2] * x.shape[3]
    return 3 * cells * narrow + 2 * wide * narrow < 2 * cells * wide


def _begins_dense(branch: nn.Module) -> bool:
    """Return whether a branch is a sequence that begins with a dense, folded `Conv` of Ultralytics."""
    first: Any = branch[0] if isinstance(branch, nn.Sequential) else None
    return type(first) is Conv and first.conv.groups == 1 and first.conv.bias is not None


def _form(block: Conv) -> tuple[Any, ...]:
    """Return what blocks must have in common to be computed as one; blocks with trainable activations never have it."""
    c, act = block.conv, block.act
    learns = id(act) if any(True for _ in act.parameters()) else None
    return c.kernel_size, c.stride, c.padding, c.dilation, repr(act), learns
