"""Typed options of a mode: declared once with check and help, validated together, listed by the command line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from ds2d2_yolo.config.checks import Check
from ds2d2_yolo.errors import BadUseError

T = TypeVar("T", bound="Options")


def option(default: Any, check: Check, about: str, experimental: bool = False) -> Any:
    """Declare an option of an `Options` class.

    Args:
        default (Any): Default value.
        check (Check): Check of the value, from `ds2d2_yolo.config.checks`.
        about (str): One line of help without default and range, which the help adds.
        experimental (bool): Whether the help lists the option under the experimental settings, after the others.

    Returns:
        (Any): A dataclass field.
    """
    return field(default=default, metadata={"check": check, "help": about, "experimental": experimental})


@dataclass(frozen=True)
class Options:
    """Base class of validated options. One error names every invalid value.

    Raises:
        BadUseError: If a value is invalid, or two values contradict each other.

    Examples:
        >>> from ds2d2_yolo.config.checks import number
        >>> @dataclass(frozen=True)
        ... class Slicing(Options):
        ...     overlap: float = option(0.2, number(0, 0.9), "share of a tile that its neighbour repeats")
        >>> Slicing.of({"overlap": 0.5}, "predict").overlap
        0.5
    """

    def __post_init__(self) -> None:
        """Check every value and report all errors together."""
        errors = [
            f"{f.name}={getattr(self, f.name)!r} {error}"
            for f in fields(self)
            if (error := f.metadata["check"](getattr(self, f.name)))
        ]
        if errors := errors or self._contradictions():
            raise BadUseError("; ".join(errors))

    def _contradictions(self) -> list[str]:
        """Return the contradictions between values that are valid one by one. Subclasses override it."""
        return []

    @classmethod
    def keys(cls) -> tuple[str, ...]:
        """Return the names of all options."""
        return tuple(f.name for f in fields(cls))

    @classmethod
    def split(cls, arguments: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Split a mapping into these options and all other keys.

        Args:
            arguments (Mapping[str, Any]): Keys of both kinds.

        Returns:
            options (dict[str, Any]): The given options of this class; paths become strings.
            others (dict[str, Any]): All other keys.
        """
        known = cls.keys()
        options = {k: str(v) if isinstance(v, Path) else v for k, v in arguments.items() if k in known}
        return options, {k: v for k, v in arguments.items() if k not in known}

    @classmethod
    def of(cls: type[T], arguments: Mapping[str, Any], mode: str, passing: Iterable[str] = ()) -> T:
        """Return the options of a command.

        Args:
            arguments (Mapping[str, Any]): Given keys and values, such as the command line's `key=value`.
            mode (str): The mode whose help lists the keys.
            passing (Iterable[str]): Further valid keys, which another consumer reads (see `split`).

        Returns:
            (T): Validated options.

        Raises:
            BadUseError: If a key is unknown (with the nearest name) or a value is invalid.
        """
        check_keys(list(arguments), {*cls.keys(), *passing}, mode)
        return cls(**cls.split(arguments)[0])

    def as_dict(self) -> dict[str, Any]:
        """Return the options as plain values."""
        return asdict(self)


def check_keys(keys: Mapping[str, Any] | list[str], known: set[str], mode: str = "train") -> None:
    """Refuse unknown keys. One line names all of them, each with the nearest valid name.

    Args:
        keys (Mapping[str, Any] | list[str]): Keys to check.
        known (set[str]): Every valid key.
        mode (str): The mode whose help lists them.

    Raises:
        BadUseError: If a key is unknown.
    """
    unknown = [k for k in keys if k not in known]
    if unknown:
        names = []
        for key in unknown:
            near = get_close_matches(key, sorted(known), n=1)
            names.append(f"'{key}'" + (f" (did you mean '{near[0]}'?)" if near else ""))
        kind = "key" if len(unknown) == 1 else "keys"
        raise BadUseError(f"unknown {kind}: {', '.join(names)}; 'ds2d2-yolo help {mode}' lists the valid ones")
