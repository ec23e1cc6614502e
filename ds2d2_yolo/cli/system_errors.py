"""What went wrong with the machine rather than with the command: said plainly, with what helps."""

from __future__ import annotations

import errno

FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
SHUT = (errno.EROFS, errno.EACCES, errno.EPERM)
NO_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "insufficient memory",
    "std::bad_alloc",
)


def fault_of(error: BaseException) -> str | None:
    """Return what is wrong with disk, memory or files, and what to do; None for any other error.

    Args:
        error (BaseException): What a command ended with.

    Returns:
        (str | None): A line without an end.
    """
    text = _last_line(error)
    number = getattr(error, "errno", None)
    if number in FULL or "No space left on device" in text:  # safetensors says it in words only
        return "the disk is full: make room"
    if number in SHUT:
        return f"{getattr(error, 'filename', None) or text} cannot be opened or written: {str(error.args[1]).lower()}"
    if isinstance(error, MemoryError) or any(words in text.lower() for words in NO_MEMORY):
        return "there is not enough memory: lower batch= or imgsz=, or end other programs"
    if isinstance(error, FileNotFoundError):
        return f"a file is missing or cannot be read ({text}): put it back"
    return None


def _last_line(error: BaseException) -> str:
    """Return what an error says; of one that came from a data loader's worker, what that one said."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].partition(": ")[2] if lines[0].startswith("Caught ") else lines[0]
