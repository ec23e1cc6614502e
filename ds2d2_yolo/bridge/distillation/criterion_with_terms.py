"""What every criterion that adds terms to a student's usual loss has in common."""

from __future__ import annotations

from typing import Any


class CriterionWithTerms:
    """A student's usual criterion, to which a subclass adds terms.

    A copy or a pickle of it is None: Ultralytics copies and saves the plain student.

    Args:
        base (Any): The criterion that the student would have had (v8DetectionLoss, v8OBBLoss or E2ELoss).
    """

    def __init__(self, base: Any) -> None:
        self.base = base
        self.end_to_end = hasattr(base, "one2many")

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        """Leave nothing of the distillation in a copy of the model."""
        return None

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        """Leave nothing of the distillation in a checkpoint."""
        return type(None), ()

    def update(self) -> None:
        """Pass the end of an epoch on to an end-to-end criterion, which shifts its weights then."""
        if self.end_to_end:
            self.base.update()

    @property
    def one2many_weight(self) -> float:
        """(float): Weight of the one-to-many branch over its initial one, 1 for a student that is not end-to-end.

        That branch only sends gradients into the neck.
        """
        return float(self.base.o2m / self.base.o2m_copy) if self.end_to_end else 1.0
