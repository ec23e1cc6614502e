"""The size of the teacher's images over that of the student's."""

from __future__ import annotations

from collections.abc import Sequence

from ds2d2_yolo.errors import BadUseError


def size_ratio(imgsz: int | Sequence[int], teacher_imgsz: int | None) -> int:
    """Return how many times larger the teacher's images are.

    Levels of both models pair where their strides differ by this ratio. Strides are powers of two, so the ratio is one.

    Args:
        imgsz (int | Sequence[int]): Side of the student's images in pixels; of several the largest counts.
        teacher_imgsz (int | None): Side of the teacher's images in pixels; None is that of the student's.

    Returns:
        (int): 1 for None, otherwise 2, 4, 8 and so on.

    Raises:
        BadUseError: If the sizes have another ratio.
    """
    if teacher_imgsz is None:
        return 1
    size = imgsz if isinstance(imgsz, int) else max(imgsz)
    setting = f"teacher_imgsz={teacher_imgsz}"
    if teacher_imgsz == size:
        raise BadUseError(f"{setting} is the student's size: leave it out, or give {2 * size}")
    if teacher_imgsz < size:
        raise BadUseError(f"{setting} is smaller than imgsz={size}: give {2 * size}, or {4 * size}")
    ratio = teacher_imgsz // size
    if teacher_imgsz % size or ratio & (ratio - 1):
        raise BadUseError(f"{setting} has to be imgsz={size} times 2, 4 or 8: give {2 * size}, or {4 * size}")
    return ratio
