"""A frozen head on adapted student features, without computing those where that is cheaper."""

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
class Opening:
    """The dense convolutions that open the branches of one level, as one.

    Attributes:
        names (tuple[str, ...]): The branches that one of them opens; the others begin otherwise.
        convolutions (tuple[Conv, ...]): One for each name, folded.
        rests (tuple[nn.Module, ...]): What follows it in its branch.
    """

    names: tuple[str, ...]
    convolutions: tuple[Conv, ...]
    rests: tuple[nn.Module, ...]

    @property
    def widths(self) -> list[int]:
        """(list[int]): Output channels of each."""
        return [c.conv.out_channels for c in self.convolutions]

    def answers(self, x: Tensor, adapter: Tensor) -> dict[str, Tensor]:
        """Return what the branches say to the adapted x, with `W A` in the place of the adapter and each W.

        Args:
            x (Tensor): Student feature, B x Cs x H x W.
            adapter (Tensor): Weight of the level's adapter, Ct x Cs x 1 x 1.

        Returns:
            (dict[str, Tensor]): By branch.
        """
        opening = self.convolutions[0]
        first: Any = opening.conv
        with torch.autocast(x.device.type, enabled=False):  # the product is small, and half of its digits are not
            weight = torch.cat([c.conv.weight for c in self.convolutions]).to(adapter.dtype)
            weight = torch.einsum("otij,ts->osij", weight, adapter.flatten(1))
        bias = torch.cat([c.conv.bias for c in self.convolutions]).to(adapter.dtype)
        y = F.conv2d(x, weight, bias, first.stride, first.padding, first.dilation)
        parts = torch.split(opening.act(y), self.widths, 1)  # not each part's own: Ultralytics' work in place
        return {name: rest(part) for name, rest, part in zip(self.names, self.rests, parts, strict=True)}


class AdaptedHead:
    """Raw predictions of a frozen head on ``A S``, for student features S and adapters A.

    An adapter is a 1 x 1 convolution without bias, so a convolution behind it is one convolution of S, whose kernel is
    the product of both: ``W * (A S) = (W A) * S``, borders included. That is as exact, and cheaper where the teacher is
    wider than the student and the feature is large (`composing_saves`). Branches that open otherwise, such as with the
    depthwise convolutions of YOLO11, take the adapted feature.

    Args:
        head (Detect): Head from `heads.take_levels`, folded.
    """

    def __init__(self, head: Detect) -> None:
        self.head = head
        self._branches: dict[str, Any] = {name: found for name, found in head.one2many.items() if found is not None}
        self._openings = [self._opening(level) for level in range(head.nl)]

    def __call__(
        self, features: Sequence[Tensor], adapters: Sequence[Tensor], adapted: Sequence[Tensor] | None = None
    ) -> dict[str, Any]:
        """Return the raw predictions.

        Args:
            features (Sequence[Tensor]): S of each level, B x Cs x H x W.
            adapters (Sequence[Tensor]): Weight of each level's adapter, Ct x Cs x 1 x 1.
            adapted (Sequence[Tensor] | None): A S of each level where something else has computed it.

        Returns:
            (dict[str, Any]): See `heads.raw_predictions`; 'feats' are the student's.
        """
        there: Sequence[Tensor | None] = adapted or [None] * len(features)
        levels = [self._level(i, *each) for i, each in enumerate(zip(features, adapters, there, strict=True))]
        # the head joins what its branches return; these have been asked already
        done = {name: [_Answer(outputs[name]) for outputs in levels] for name in self._branches}
        predictions: dict[str, Any] = self.head.forward_head(list(features), **done)
        return predictions

    def _level(self, level: int, x: Tensor, adapter: Tensor, adapted: Tensor | None) -> dict[str, Tensor]:
        """Return what each branch says on one level."""
        opening = self._openings[level]
        outputs = opening.answers(x, adapter) if opening.names and composing_saves(x, adapter) else {}
        if len(outputs) < len(self._branches):
            adapted = F.conv2d(x, adapter) if adapted is None else adapted
            outputs |= {n: branch[level](adapted) for n, branch in self._branches.items() if n not in outputs}
        return outputs

    def _opening(self, level: int) -> Opening:
        """Return the dense convolutions that open the branches of a level and are of one form."""
        at = {name: branch[level] for name, branch in self._branches.items() if _opens(branch[level])}
        forms = {name: _form(branch[0]) for name, branch in at.items()}
        alike = [name for name, form in forms.items() if form == next(iter(forms.values()))]
        return Opening(tuple(alike), tuple(at[n][0] for n in alike), tuple(at[n][1:] for n in alike))


class _Answer:
    """Stands where a branch stood that has been asked already."""

    def __init__(self, output: Tensor) -> None:
        self.output = output

    def __call__(self, _: Tensor) -> Tensor:
        """Return what the branch said."""
        return self.output


def composing_saves(x: Tensor, adapter: Tensor) -> bool:
    """Return whether one convolution of the product takes fewer operations than adapter and convolution.

    For each cell of the kernel and each output channel, with n = B H W cells, Cs and Ct channels: forward pass and
    gradient of the adapted feature are ``2 n Ct`` multiplications; those of S and the gradient of the product are
    ``3 n Cs``, the product itself and the adapter's gradient ``2 Ct Cs``.

    Args:
        x (Tensor): Student feature, B x Cs x H x W.
        adapter (Tensor): Weight of its adapter, Ct x Cs x 1 x 1.

    Returns:
        (bool): False for a teacher that is not half as wide again as the student.
    """
    wide, narrow = adapter.shape[:2]
    cells = x.shape[0] * x.shape[2] * x.shape[3]
    return 3 * cells * narrow + 2 * wide * narrow < 2 * cells * wide


def _opens(branch: nn.Module) -> bool:
    """Return whether a branch is a sequence that opens with a dense, folded convolution of Ultralytics' plain kind."""
    first: Any = branch[0] if isinstance(branch, nn.Sequential) else None
    return type(first) is Conv and first.conv.groups == 1 and first.conv.bias is not None


def _form(block: Conv) -> tuple[Any, ...]:
    """Return what blocks of one input must have in common to be one; two with activations that learn never have."""
    c, act = block.conv, block.act
    learns = id(act) if any(True for _ in act.parameters()) else None
    return c.kernel_size, c.stride, c.padding, c.dilation, repr(act), learns
