"""Error messages of Ultralytics and other packages, shortened to one line."""

from __future__ import annotations

PREFIX = "ERROR ❌️ "  # Ultralytics puts it before some of its messages (8.4.190)
FORMAT_LIST = ". Ultralytics supports"  # starts the list of all model formats in an error about one of them


def first_line(error: BaseException) -> str:
    r"""Return the first line of an error message, without what Ultralytics adds to it.

    Args:
        error (BaseException): Any error.

    Returns:
        (str): The line, or the name of the error's type if the message is empty.

    Examples:
        >>> first_line(ValueError("wrong size\nTraceback ..."))
        'wrong size'
        >>> first_line(KeyError())
        'KeyError'
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].strip().removeprefix(PREFIX).partition(FORMAT_LIST)[0]
