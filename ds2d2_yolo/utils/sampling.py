"""Deterministic choices among images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")


def evenly_spaced(items: Sequence[T], count: int) -> list[T]:
    """Return items at equal distances.

    Args:
        items (Sequence[T]): The items.
        count (int): Largest number of items to return.

    Returns:
        (list[T]): All items if there are no more than `count`.
    """
    if len(items) <= count:
        return list(items)
    return [items[(2 * i + 1) * len(items) // (2 * count)] for i in range(count)]


def choose_varied(items: Sequence[T], classes: Sequence[NDArray[Any]], number: int) -> list[T]:
    """Choose images that show as many classes as possible, always the same ones.

    Classes are visited from the rarest to the most frequent; each adds the image with most of its objects.

    Args:
        items (Sequence[T]): Images to choose from, hashable.
        classes (Sequence[NDArray[Any]]): Class index of each object of each image, as whole numbers.
        number (int): Number of images to choose.

    Returns:
        (list[T]): In the order of choice; fewer than `number` if there are fewer images.
    """
    counts = np.zeros((len(items), 1 + max((int(c.max(initial=0)) for c in classes), default=0)), dtype=np.int64)
    for row, indices in zip(counts, classes, strict=True):
        np.add.at(row, indices, 1)
    totals = counts.sum(0)
    rarest = sorted((k for k in range(len(totals)) if totals[k]), key=lambda k: int(totals[k]))
    best = [items[int(counts[:, k].argmax())] for k in rarest]
    return list(dict.fromkeys([*best, *evenly_spaced(items, number), *items]))[:number]
