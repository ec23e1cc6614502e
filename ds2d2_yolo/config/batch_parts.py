"""The parts of a batch that hold labelled and unlabelled images. Not part of the published method."""

from __future__ import annotations

from dataclasses import dataclass

from ds2d2_yolo.errors import BadUseError


@dataclass(frozen=True)
class BatchParts:
    """Images of each kind in the batch of one process.

    Attributes:
        labelled (int): Labelled images, at least 1.
        unlabelled (int): Unlabelled images, at least 1.
    """

    labelled: int
    unlabelled: int

    @classmethod
    def of(cls, batch: int, share: float, processes: int = 1) -> BatchParts:
        """Divide a batch: ``unlabelled = round(share x batch / processes)``, the others are labelled.

        Args:
            batch (int): Images of a batch over all processes.
            share (float): `unlabelled_share`, above 0 and below 1.
            processes (int): Processes that share the batch.

        Returns:
            (BatchParts): Parts of each process.

        Raises:
            BadUseError: If one of the kinds would have no image.

        Examples:
            >>> BatchParts.of(16, 0.25)
            BatchParts(labelled=12, unlabelled=4)
        """
        images = batch // max(processes, 1)
        unlabelled = round(share * images)
        if not 0 < unlabelled < images:
            where = f" in each of {processes} processes" if processes > 1 else ""
            raise BadUseError(
                f"batch={batch} with unlabelled_share={share:g} holds {images - unlabelled} labelled and {unlabelled} "
                f"unlabelled images{where}: it needs one of each, change batch= or unlabelled_share="
            )
        return cls(images - unlabelled, unlabelled)
