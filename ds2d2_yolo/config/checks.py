"""Checks of single settings. A check describes the valid range and returns the error of a value, or None."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from math import inf
from pathlib import Path
from typing import Any

import pywt


@dataclass(frozen=True)
class Check:
    """The valid values of a setting.

    Attributes:
        takes (str): Valid range in words, for the help.
        error (Callable[[Any], str | None]): Returns the error of a value, None for a valid one.
        choices (tuple[str, ...]): Valid words, for the shell completion; empty for numbers and paths.
    """

    takes: str
    error: Callable[[Any], str | None]
    choices: tuple[str, ...] = ()

    def __call__(self, value: Any) -> str | None:
        """Return the error of a value, None for a valid one."""
        return self.error(value)


def number(low: float, high: float = inf, above: bool = False) -> Check:
    """Return a check for a finite number from `low` to `high`.

    Args:
        low (float): Lower bound.
        high (float): Upper bound, included.
        above (bool): Whether the lower bound is excluded.

    Returns:
        (Check): The check.
    """
    valid_range = f"{'above' if above else 'of at least'} {low:g}" + ("" if high == inf else f" and at most {high:g}")

    def check(value: Any) -> str | None:
        fits = _is_number(value) and low <= value <= high and value < inf and not (above and value == low)
        return None if fits else f"must be a finite number {valid_range}"

    bound = f"above {low:g}" if above else f"{low:g}"
    return Check(f"{bound} or more" if high == inf and not above else bound + ("" if high == inf else f" to {high:g}"),
                 check)  # fmt: skip


def between(low: float, high: float) -> Check:
    """Return a check for a number between two bounds, both excluded.

    Args:
        low (float): Lower bound.
        high (float): Upper bound.

    Returns:
        (Check): The check.
    """

    def check(value: Any) -> str | None:
        return None if _is_number(value) and low < value < high else f"must be above {low:g} and below {high:g}"

    return Check(f"above {low:g}, below {high:g}", check)


def integer(low: int) -> Check:
    """Return a check for an integer of at least `low`.

    Args:
        low (int): Lower bound.

    Returns:
        (Check): The check.
    """

    def check(value: Any) -> str | None:
        fits = isinstance(value, int) and not isinstance(value, bool) and value >= low
        return None if fits else f"must be a whole number of at least {low}"

    return Check(f"whole, {low} or more", check)


def one_of(*names: str) -> Check:
    """Return a check for one of several words; its error suggests the nearest one.

    Args:
        *names (str): Valid words.

    Returns:
        (Check): The check.
    """

    def check(value: Any) -> str | None:
        if value in names:
            return None
        near = get_close_matches(str(value), names, n=1)
        return f"must be one of {', '.join(names)}" + (f" (did you mean '{near[0]}'?)" if near else "")

    return Check(" | ".join(names), check, names)


def many(check: Check, low: int = 1) -> Check:
    """Return a check for a list of at least `low` values, each of them valid for `check`.

    Args:
        check (Check): Check of each value.
        low (int): Minimum number of values.

    Returns:
        (Check): The check.
    """

    def check_all(value: Any) -> str | None:
        if not isinstance(value, (list, tuple)) or len(value) < low:
            return "must be a list, such as [8,16]"
        return next((f"holds {v!r}, which {error}" for v in value if (error := check(v))), None)

    return Check(f"list ({check.takes})", check_all)


def words(value: Any) -> Any:
    """Split a comma-separated text into a list, as Ultralytics' users type it; return any other value unchanged.

    Args:
        value (Any): Value of a setting.

    Returns:
        (Any): A list of stripped words for a text, otherwise `value`.
    """
    return [word.strip() for word in value.split(",")] if isinstance(value, str) else value


def listed(names: Check) -> Check:
    """Return a check for several names, given as a list or as comma-separated text.

    Args:
        names (Check): Check of each name.

    Returns:
        (Check): The check.
    """
    check = many(names)
    return Check(check.takes, lambda value: check(words(value)))


def either(first: Check, second: Check) -> Check:
    """Return a check for a value that is valid for one of two checks.

    Args:
        first (Check): One check.
        second (Check): The other check.

    Returns:
        (Check): The check.
    """

    def check(value: Any) -> str | None:
        errors = first(value), second(value)
        return None if None in errors else f"{errors[0]}, or {str(errors[1]).removeprefix('must be ')}"

    return Check(f"{first.takes} | {second.takes}", check, (*first.choices, *second.choices))


def optional(check: Check) -> Check:
    """Return a check that also accepts None.

    Args:
        check (Check): Check of every other value.

    Returns:
        (Check): The check.
    """

    def check_unless_none(value: Any) -> str | None:
        return None if value is None or (error := check(value)) is None else f"{error}, or None"

    return Check(check.takes, check_unless_none, check.choices)


def _wavelet_error(value: Any) -> str | None:
    """Return an error unless the value names a discrete wavelet of PyWavelets."""
    names = pywt.wavelist(kind="discrete")
    if value in names:
        return None
    near = get_close_matches(str(value), names, n=1)
    return "must be a discrete wavelet of PyWavelets" + (f", such as '{near[0]}'" if near else ", such as 'haar'")


def _path_error(value: Any) -> str | None:
    """Return an error unless the value is a path or a name on one line: error messages name it on one line."""
    if not isinstance(value, (str, Path)) or not str(value).strip():
        return "must be a path"
    return None if str(value).splitlines() == [str(value)] and "\0" not in str(value) else "must be one line"


def _is_number(value: Any) -> bool:
    """Return whether a value is a number; booleans do not count."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


flag = Check(
    "True | False", lambda value: None if isinstance(value, bool) else "must be True or False", ("True", "False")
)
path = Check("path", lambda value: _path_error(value))
text = Check("text", lambda value: None if isinstance(value, str) and value else "must be text")
wavelet = Check("PyWavelets name", _wavelet_error, tuple(pywt.wavelist(kind="discrete")))
# text, number or list: Ultralytics checks the value where it is loaded
anything = Check("as Ultralytics takes it", lambda value: None)
# help texts of options that several modes share
SAFE = "refuse checkpoints, model YAMLs and data sets that could run code"
VERBOSE = "False shows no progress; True shows a traceback when something fails"
