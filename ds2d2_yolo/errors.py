"""The errors that a person can cause: one line each, what is wrong and what to do."""

from __future__ import annotations


class DS2D2Error(Exception):
    """A run that cannot go on; the command line prints its one line and ends with `status`.

    Attributes:
        status (int): Exit status of the command line, 1 for a failure.
    """

    status = 1


class BadUseError(DS2D2Error, ValueError):
    """Settings, arguments or files that do not fit what was asked for; exit status 2."""

    status = 2
