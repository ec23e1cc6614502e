"""Values and files that all processes of a distributed run share; no effect in a single process."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch.distributed as dist


def distributed() -> bool:
    """Return whether this process belongs to a group."""
    return dist.is_available() and dist.is_initialized()


def broadcast_from_rank0(values: list[Any]) -> list[Any]:
    """Broadcast the values of rank 0.

    Args:
        values (list[Any]): Picklable values; in all processes but rank 0 they are replaced, in place.

    Returns:
        (list[Any]): Those of rank 0; the given ones outside a distributed run.
    """
    if distributed():
        dist.broadcast_object_list(values, src=0)
    return values


def true_in_all(value: bool) -> bool:
    """Return whether a value is true in all processes; each waits for the others.

    Args:
        value (bool): The value of this process.

    Returns:
        (bool): Whether it is true in every process; the value itself outside a distributed run.
    """
    if not distributed():
        return value
    values = [False] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return all(values)


@contextmanager
def file_from_rank0(path: str | Path | None) -> Iterator[Path]:
    """Make the file of rank 0 available to all processes, those on other machines included.

    Args:
        path (str | Path | None): The file; only used in rank 0.

    Yields:
        (Path): The file in rank 0 and outside a distributed run; elsewhere a copy that lasts as long as the context.
    """
    if not distributed():
        yield Path(str(path))
        return
    first = dist.get_rank() == 0
    content, name = broadcast_from_rank0([Path(str(path)).read_bytes(), Path(str(path)).name] if first else [b"", ""])
    if first:
        yield Path(str(path))
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, name)
        copy.write_bytes(content)
        yield copy
