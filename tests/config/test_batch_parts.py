"""A batch divided into labelled and unlabelled images."""

from __future__ import annotations

import pytest

from ds2d2_yolo.config.batch_parts import BatchParts
from ds2d2_yolo.errors import BadUseError


@pytest.mark.parametrize(
    ("batch", "share", "processes", "expected"),
    [(16, 0.5, 1, (8, 8)), (16, 0.25, 1, (12, 4)), (16, 0.5, 2, (4, 4)), (2, 0.5, 1, (1, 1)), (6, 0.9, 1, (1, 5))],
)
def test_parts_of_each_process(batch: int, share: float, processes: int, expected: tuple[int, int]) -> None:
    parts = BatchParts.of(batch, share, processes)
    assert (parts.labelled, parts.unlabelled) == expected
    assert parts.labelled + parts.unlabelled == batch // processes


@pytest.mark.parametrize(
    ("batch", "share", "processes", "message"),
    [
        (1, 0.5, 1, "holds 1 labelled and 0 unlabelled images: it needs one of each"),
        (4, 0.95, 1, "holds 0 labelled and 4 unlabelled images"),
        (4, 0.5, 4, "in each of 4 processes"),
    ],
)
def test_a_batch_without_one_of_the_kinds_is_refused(batch: int, share: float, processes: int, message: str) -> None:
    with pytest.raises(BadUseError, match=message) as error:
        BatchParts.of(batch, share, processes)
    assert "\n" not in str(error.value)
