"""Atomic writes: temporary file, fsync, rename."""

from __future__ import annotations

import glob
import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped,unused-ignore]  # comes with Ultralytics


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path whose file replaces `path` when the context ends without an error.

    A kill at any moment leaves the old file or the new one, and perhaps a temporary one, whose name starts with a dot
    and ends in '.tmp'. The next write of the same file removes it.

    Args:
        path (Path): The file to write; its folder is made.

    Yields:
        (Path): Where to write, in the same folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_of(path)
    try:
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def temporary_of(path: Path) -> Path:
    """Return the path of this process's temporary file or folder for `path`, in the same folder.

    Temporary files of ended processes of this machine are removed. A running process may still write to its file.

    Args:
        path (Path): File or folder to write.

    Returns:
        (Path): A path that does not exist; the name starts with a dot and ends in '.tmp'.
    """
    for left in path.parent.glob(f".{glob.escape(path.name)}.{_host()}-*.tmp"):
        process = left.name[: -len(".tmp")].rpartition("-")[2]
        if process.isdigit() and not psutil.pid_exists(int(process)):
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
    return path.with_name(f".{path.name}.{_host()}-{os.getpid()}.tmp")


def _host() -> str:
    """Return this machine's name for file names: in a shared folder, process ids of several machines may be equal."""
    return "".join(c for c in socket.gethostname() if c.isalnum())


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file atomically.

    Args:
        path (Path): The file; its folder is made.
        content (str | bytes): Its content; text is written as UTF-8, line ends unchanged.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON atomically."""
    write_atomically(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
