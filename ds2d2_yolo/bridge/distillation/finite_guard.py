"""Masks images with non-finite outputs and zeroes the gradient of non-finite losses, without a device sync.

A product with zero would not do, since 0 x NaN is NaN. Unusable numbers are therefore replaced before a term sees them,
and the gradient of a non-finite term is replaced on its way back.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

# Euclidean, per image and tensor. Far above a working model's outputs; squares and box areas below it fit in float32.
MAX_NORM = 1e9


def valid_images(tensors: Iterable[Tensor]) -> Tensor:
    """Return for which images of a batch all tensors are finite and of a norm below `MAX_NORM`.

    Args:
        tensors (Iterable[Tensor]): At least one, B x ... each.

    Returns:
        (Tensor): B bool.
    """
    norms = [
        torch.linalg.vector_norm(x, dim=tuple(range(1, x.ndim)), dtype=torch.promote_types(x.dtype, torch.float32))
        for x in tensors
    ]
    return (torch.stack(norms) < MAX_NORM).all(0)


def zero_invalid(tensors: Iterable[Tensor], valid: Tensor) -> list[Tensor]:
    """Zero the images that are not valid, in place.

    Args:
        tensors (Iterable[Tensor]): B x C x H x W each.
        valid (Tensor): B bool.

    Returns:
        (list[Tensor]): The tensors.
    """
    return [x.masked_fill_(~valid[:, None, None, None], 0) for x in tensors]


class FiniteGuard:
    """Passes a term's inputs through, and their gradient back only if the term is finite.

    Examples:
        >>> x = torch.zeros(1, requires_grad=True)
        >>> guard = FiniteGuard()
        >>> (y,) = guard.inputs([x])
        >>> (term,) = guard.outputs(1 / y)
        >>> term.sum().backward()
        >>> term, x.grad
        (tensor([0.], grad_fn=<WhereBackward0>), tensor([0.]))
    """

    def __init__(self) -> None:
        self._left_out: Tensor | None = None

    def inputs(self, tensors: list[Tensor]) -> list[Tensor]:
        """Return views of the tensors; the term is to be computed from them.

        Args:
            tensors (list[Tensor]): The term's inputs, of any shape.

        Returns:
            (list[Tensor]): One view per tensor, in the same order. The gradient of a view becomes zero if the term is
                not finite.
        """
        views = [x.view_as(x) for x in tensors]
        for view in views:
            if view.requires_grad:
                view.register_hook(self._stop_gradient)  # type: ignore[no-untyped-call]
        return views

    def outputs(self, *terms: Tensor) -> tuple[Tensor, ...]:
        """Return the terms unchanged, or zeros if one of them is not finite.

        Args:
            *terms (Tensor): At least one, all of the same shape and on the same device.

        Returns:
            (tuple[Tensor, ...]): One per term, of its shape.
        """
        self._left_out = ~torch.stack(terms).isfinite().all()
        return tuple(torch.where(self._left_out, 0, term) for term in terms)

    @property
    def left_out(self) -> Tensor:
        """(Tensor): Scalar bool, whether the terms were replaced by zeros."""
        assert self._left_out is not None
        return self._left_out

    def _stop_gradient(self, gradient: Tensor) -> Tensor:
        """Zero the gradient of a term that was left out; in place, since no other node holds it."""
        return gradient.masked_fill_(self.left_out, 0)
