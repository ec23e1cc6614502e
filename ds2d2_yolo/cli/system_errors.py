"""Plain messages for errors of the machine: full disk, refused access, too little memory, missing files."""

from __future__ import annotations

import errno

DISK_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
ACCESS_REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM)
OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "insufficient memory",
    "std::bad_alloc",
)


def system_error_message(error: BaseException) -> str | None:
    """Return the message for an error of disk, memory or files, with the remedy.

    Args:
        error (BaseException): The exception that ended a command.

    Returns:
        (str | None): The message, without a final period; None for any other error.
    """
    text = _error_line(error)
    number = getattr(error, "errno", None)
    if number in DISK_FULL or "No space left on device" in text:  # safetensors gives no errno
        return "the disk is full: make room"
    if number in ACCESS_REFUSED:
        return f"{getattr(error, 'filename', None) or text} cannot be opened or written: {str(error.args[1]).lower()}"
    if isinstance(error, MemoryError) or any(words in text.lower() for words in OUT_OF_MEMORY):
        return "there is not enough memory: lower batch= or imgsz=, or end other programs"
    if isinstance(error, FileNotFoundError):
        return f"a file is missing or cannot be read ({text}): put it back"
    return None


def _error_line(error: BaseException) -> str:
    """Return the first line of an error; for one of a data loader's worker, the worker's error without its type."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].partition(": ")[2] if lines[0].startswith("Caught ") else lines[0]
