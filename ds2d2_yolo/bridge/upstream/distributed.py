"""What all processes of a distributed run have to agree on; in a single process these change nothing."""

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
    """Return the first process's values in all of them; outside a distributed run, the values."""
    if distributed():
        dist.broadcast_object_list(values, src=0)
    return values


@contextmanager
def file_from_rank0(path: str | Path | None) -> Iterator[Path]:
    """Give the first process's file to all of them, those on other machines included.

    Args:
        path (str | Path | None): The file; only the first process's counts.

    Yields:
        (Path): In the first process and outside a distributed run the file itself, elsewhere a copy for the context.
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
