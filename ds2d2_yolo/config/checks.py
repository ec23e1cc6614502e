"""The checks of single settings: each says what it takes, and what is wrong with a value, None if nothing is."""

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
    """What a setting takes.

    Attributes:
        takes (str): Its range in words, for the help.
        wrong (Callable[[Any], str | None]): Returns what is wrong with a value, None if nothing is.
        words (tuple[str, ...]): The words that a value may be, for the completion; none for numbers and paths.
    """

    takes: str
    wrong: Callable[[Any], str | None]
    words: tuple[str, ...] = ()

    def __call__(self, value: Any) -> str | None:
        """Return what is wrong with a value, None if nothing is."""
        return self.wrong(value)


def number(low: float, high: float = inf, above: bool = False) -> Check:
    """Return a check for a finite number from `low` (or above it) to `high`."""
    said = f"{'above' if above else 'of at least'} {low:g}" + ("" if high == inf else f" and at most {high:g}")

    def check(value: Any) -> str | None:
        fits = _is_number(value) and low <= value <= high and value < inf and not (above and value == low)
        return None if fits else f"must be a finite number {said}"

    bound = f"above {low:g}" if above else f"{low:g}"
    return Check(f"{bound} or more" if high == inf and not above else bound + ("" if high == inf else f" to {high:g}"),
                 check)  # fmt: skip


def whole(low: int) -> Check:
    """Return a check for a whole number of at least `low`."""

    def check(value: Any) -> str | None:
        fits = isinstance(value, int) and not isinstance(value, bool) and value >= low
        return None if fits else f"must be a whole number of at least {low}"

    return Check(f"whole, {low} or more", check)


def one_of(*names: str) -> Check:
    """Return a check for one of several words; the nearest one is named."""

    def check(value: Any) -> str | None:
        if value in names:
            return None
        near = get_close_matches(str(value), names, n=1)
        return f"must be one of {', '.join(names)}" + (f" (did you mean '{near[0]}'?)" if near else "")

    return Check(" | ".join(names), check, names)


def many(check: Check, low: int = 1) -> Check:
    """Return a check for a list of at least `low` values, each of which passes `check`."""

    def check_all(value: Any) -> str | None:
        if not isinstance(value, (list, tuple)) or len(value) < low:
            return "must be a list, such as [8,16]"
        return next((f"holds {v!r}, which {said}" for v in value if (said := check(v))), None)

    return Check(f"list ({check.takes})", check_all)


def words(value: Any) -> Any:
    """Return words between commas as a list, as Ultralytics' users type them; anything else as it is."""
    return [word.strip() for word in value.split(",")] if isinstance(value, str) else value


def listed(names: Check) -> Check:
    """Return a check for several names, as a list or as words between commas."""
    check = many(names)
    return Check(check.takes, lambda value: check(words(value)))


def either(first: Check, second: Check) -> Check:
    """Return a check that one of two has to pass."""

    def check(value: Any) -> str | None:
        wrong = first(value), second(value)
        return None if None in wrong else f"{wrong[0]}, or {str(wrong[1]).removeprefix('must be ')}"

    return Check(f"{first.takes} | {second.takes}", check, (*first.words, *second.words))


def optional(check: Check) -> Check:
    """Return a check that lets None pass."""

    def check_given(value: Any) -> str | None:
        return None if value is None or (said := check(value)) is None else f"{said}, or None"

    return Check(check.takes, check_given, check.words)


def _wrong_wavelet(value: Any) -> str | None:
    """Check for the name of a discrete wavelet of PyWavelets."""
    names = pywt.wavelist(kind="discrete")
    if value in names:
        return None
    near = get_close_matches(str(value), names, n=1)
    return "must be a discrete wavelet of PyWavelets" + (f", such as '{near[0]}'" if near else ", such as 'haar'")


def _wrong_path(value: Any) -> str | None:
    """Check for a path or a name; one with a line break could not be named in one line."""
    if not isinstance(value, (str, Path)) or not str(value).strip():
        return "must be a path"
    return None if str(value).splitlines() == [str(value)] and "\0" not in str(value) else "must be one line"


def _is_number(value: Any) -> bool:
    """Return whether a value is a number; True and False are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


flag = Check(
    "True | False", lambda value: None if isinstance(value, bool) else "must be True or False", ("True", "False")
)
path = Check("path", lambda value: _wrong_path(value))
text = Check("text", lambda value: None if isinstance(value, str) and value else "must be text")
wavelet = Check("PyWavelets name", _wrong_wavelet, tuple(pywt.wavelist(kind="discrete")))
# text, number or list: Ultralytics' own meaning of it is checked where Ultralytics is loaded
anything = Check("as Ultralytics takes it", lambda value: None)
# the help of an option that several modes have
SAFE = "refuse checkpoints, model YAMLs and data sets that could run code"
