"""What is not finite stays out of the terms: images on which a teacher has no usable answer, and terms that overflow.

Nothing here waits for a GPU. A product with zero would not do, 0 x NaN is NaN: numbers are put in the place of those
that are not usable before a term sees them, and where a term itself is not finite its gradient is replaced on its way
out.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

# Per image and tensor, Euclidean. Far above what a working model gives; squares and box areas below it fit in float32.
LARGEST = 1e9


def sound_images(tensors: Iterable[Tensor]) -> Tensor:
    """Return for which images of a batch all tensors are finite, and of a norm below `LARGEST`.

    Args:
        tensors (Iterable[Tensor]): B x ... each, one at least.

    Returns:
        (Tensor): Bool, B.
    """
    norms = [
        torch.linalg.vector_norm(x, dim=tuple(range(1, x.ndim)), dtype=torch.promote_types(x.dtype, torch.float32))
        for x in tensors
    ]
    return (torch.stack(norms) < LARGEST).all(0)


class Gate:
    """Lets a term's inputs through, and their gradient back only if the term is finite.

    Examples:
        >>> x = torch.zeros(1, requires_grad=True)
        >>> gate = Gate()
        >>> (y,) = gate.inputs([x])
        >>> (term,) = gate.close(1 / y)
        >>> term.sum().backward()
        >>> term, x.grad
        (tensor([0.], grad_fn=<WhereBackward0>), tensor([0.]))
    """

    def __init__(self) -> None:
        self._shut: Tensor | None = None

    def inputs(self, tensors: list[Tensor]) -> list[Tensor]:
        """Return views of the tensors through which the term is to be computed."""
        views = [x.view_as(x) for x in tensors]
        for view in views:
            if view.requires_grad:
                view.register_hook(self._stop)  # type: ignore[no-untyped-call]
        return views

    def close(self, *terms: Tensor) -> tuple[Tensor, ...]:
        """Return the terms as they are, or zeros if one of them is not finite."""
        self._shut = ~torch.stack(terms).isfinite().all()
        return tuple(torch.where(self._shut, 0, term) for term in terms)

    @property
    def shut(self) -> Tensor:
        """(Tensor): Scalar bool, whether the terms were left out."""
        assert self._shut is not None
        return self._shut

    def _stop(self, gradient: Tensor) -> Tensor:
        """Replace the gradient of a term that was left out; in place, no other node holds it."""
        return gradient.masked_fill_(self.shut, 0)
