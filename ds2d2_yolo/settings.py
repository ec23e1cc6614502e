"""The settings of DS2D2: one typed, validated object, the same names on the command line, in Python and in YAML."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_args

import pywt

from ds2d2_yolo.errors import BadUseError

TERMS = ("exlo", "exhi", "imfu", "imhi")
Extent = Literal["touched", "reference"]
EXTENTS = get_args(Extent)


def _gain(value: Any) -> str | None:
    """Return what is wrong with a gain, None if nothing is."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return None if number and 0 <= value < float("inf") else "must be a finite number of at least 0"


def _wavelet(value: Any) -> str | None:
    """Return what is wrong with the name of a wavelet, None if nothing is."""
    names = pywt.wavelist(kind="discrete")
    if value in names:
        return None
    near = get_close_matches(str(value), names, n=1)
    return "must be a discrete wavelet of PyWavelets" + (f", such as '{near[0]}'" if near else ", such as 'haar'")


def _extent(value: Any) -> str | None:
    """Return what is wrong with a DISW extent, None if nothing is."""
    return None if value in EXTENTS else f"must be one of {', '.join(EXTENTS)}"


def _path(value: Any) -> str | None:
    """Return what is wrong with an optional path, None if nothing is."""
    return None if value is None or (isinstance(value, (str, Path)) and str(value)) else "must be a path or None"


def _epochs(value: Any) -> str | None:
    """Return what is wrong with an optional number of epochs, None if nothing is."""
    whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    return None if value is None or whole else "must be a whole number of at least 1, or None"


def _setting(default: Any, check: Callable[[Any], str | None], about: str) -> Any:
    """Declare a setting: its default, its check and its line of help."""
    return field(default=default, metadata={"check": check, "help": about})


@dataclass(frozen=True)
class Settings:
    """Settings of a distillation, validated when made.

    Attributes:
        teacher (str | None): Trained Ultralytics checkpoint (.pt) of the student's task.
        exlo (float): Gain of the explicit low-frequency term, 0 switches it off.
        exhi (float): Gain of the explicit high-frequency term.
        imfu (float): Gain of the implicit term through the full-frequency amplifier.
        imhi (float): Gain of the implicit term through the high-frequency amplifier.
        wavelet (str): Discrete wavelet of PyWavelets; Haar is the fast path.
        extent (str): Which cells a box holds in the DISW map, 'touched' or 'reference' (upright boxes only).
        amplifier (str | None): High-frequency amplifier to use; None finds a kept one or trains it.
        amplifier_epochs (int | None): Epochs of its training; None is a quarter of the student's, at least 1.

    Raises:
        BadUseError: If any value is out of its range; all of them are named in one line.

    Examples:
        >>> Settings(teacher="teacher.pt", imhi=0).active
        ('exlo', 'exhi', 'imfu')
    """

    teacher: str | None = _setting(None, _path, "trained checkpoint (.pt) of the big model, needed")
    exlo: float = _setting(0.1, _gain, "gain of the explicit low-frequency term, 0 or more, 0 is off")
    exhi: float = _setting(0.1, _gain, "gain of the explicit high-frequency term, 0 or more, 0 is off")
    imfu: float = _setting(1.0, _gain, "gain of the full-frequency amplifier's term, 0 or more, 0 is off")
    imhi: float = _setting(1.0, _gain, "gain of the high-frequency amplifier's term, 0 or more, 0 is off")
    wavelet: str = _setting("haar", _wavelet, "discrete wavelet of PyWavelets, haar is the fast path")
    extent: Literal["touched", "reference"] = _setting(
        "touched", _extent, "cells of a box in the DISW map: touched or reference (upright boxes)"
    )
    amplifier: str | None = _setting(None, _path, "high-frequency amplifier (.safetensors), None finds or trains one")
    amplifier_epochs: int | None = _setting(None, _epochs, "epochs of its training, None is a quarter of epochs")

    def __post_init__(self) -> None:
        """Check every value and report all that are wrong together."""
        wrong = [
            f"{f.name}={getattr(self, f.name)!r} {said}"
            for f in fields(self)
            if (said := f.metadata["check"](getattr(self, f.name)))
        ]
        if wrong:
            raise BadUseError("; ".join(wrong))

    @property
    def gains(self) -> dict[str, float]:
        """(dict[str, float]): Gain of each term, in the order of the columns."""
        return {term: float(getattr(self, term)) for term in TERMS}

    @property
    def active(self) -> tuple[str, ...]:
        """(tuple[str, ...]): The terms whose gain is not 0."""
        return tuple(term for term, gain in self.gains.items() if gain > 0)

    @classmethod
    def keys(cls) -> tuple[str, ...]:
        """Return the names of all settings."""
        return tuple(f.name for f in fields(cls))

    @classmethod
    def split(cls, overrides: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Part a mapping into the DS2D2 settings and the rest, which is Ultralytics'.

        Args:
            overrides (Mapping[str, Any]): Keys of both kinds.

        Returns:
            ours (dict[str, Any]): The DS2D2 settings among them; paths become strings.
            rest (dict[str, Any]): Everything else.
        """
        known = cls.keys()
        ours = {k: str(v) if isinstance(v, Path) else v for k, v in overrides.items() if k in known}
        return ours, {k: v for k, v in overrides.items() if k not in known}

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as plain values, as they are kept in args.yaml and in checkpoints of unfinished runs."""
        return asdict(self)


def check_keys(keys: Mapping[str, Any] | list[str], known: set[str], mode: str = "train") -> None:
    """Refuse keys that nobody knows, all in one line, each with the nearest name.

    Args:
        keys (Mapping[str, Any] | list[str]): Keys to check.
        known (set[str]): Every valid key.
        mode (str): The mode whose help lists them.

    Raises:
        BadUseError: If a key is unknown.
    """
    unknown = [k for k in keys if k not in known]
    if unknown:
        said = []
        for key in unknown:
            near = get_close_matches(key, sorted(known), n=1)
            said.append(f"'{key}'" + (f" (did you mean '{near[0]}'?)" if near else ""))
        kind = "key" if len(unknown) == 1 else "keys"
        raise BadUseError(f"unknown {kind}: {', '.join(said)}; 'ds2d2-yolo help {mode}' lists the valid ones")
