"""The text of `help`: the modes, and the keys of a mode with default, range and meaning."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import MISSING, Field
from textwrap import wrap
from typing import Any

from ds2d2_yolo.cli.modes import MODES, REQUIRED, Mode, load

WIDTH = 120  # columns of a line
MAX_RANGE_WIDTH = 28  # columns of the ranges; a wider range takes a separate line
FOOTER = """'ds2d2-yolo help MODE' lists the keys of a mode. Append 'resume' to the command of an interrupted training.
Exit status: 0, 1 (failed), 2 (bad use), 130 (interrupted), 143 (terminated). verbose=True shows a traceback."""

HelpRow = tuple[str, str, str]  # key with default, range, meaning


def usage() -> str:
    """Return the list of all modes."""
    modes = "\n".join(f"  {name:11}{mode.about}" for name, mode in MODES.items())
    return f"ds2d2-yolo MODE key=value ...\n\n{modes}\n\n  {MODES['train'].example}\n\n{FOOTER}"


def help_of(name: str) -> str:
    """Return the help of a mode.

    Args:
        name (str): A name of `MODES`.

    Returns:
        (str): Purpose, example, and keys with default, range and meaning, the experimental ones last.
    """
    mode = MODES[name]
    lines = [f"ds2d2-yolo {name}: {mode.about}", "", f"  {mode.example}"]
    rows, experimental = _rows(mode), _rows(mode, experimental=True)
    widths = [max((len(row[i]) for row in (*rows, *experimental)), default=0) for i in range(2)]
    for heading, group in (("Keys:", rows), ("Experimental settings:", experimental)):
        lines += ["", heading, *_table(group, widths[0], min(widths[1], MAX_RANGE_WIDTH))] if group else []
    if mode.notes:
        lines += ["", load(mode.notes)]
    if mode.page:
        lines += ["", f"Further keys are Ultralytics': https://docs.ultralytics.com/modes/{mode.page}"]
    return "\n".join(lines)


def _rows(mode: Mode, experimental: bool = False) -> list[HelpRow]:
    """Return the rows of a mode: the experimental keys, or all others with the required Ultralytics keys."""
    rows = [_row(f) for f in mode.option_fields() if f.metadata["help"] and f.metadata["experimental"] == experimental]
    return rows if experimental else rows[:1] + [(name, *REQUIRED[name]) for name in mode.required] + rows[1:]


def _row(declared: Field[Any]) -> HelpRow:
    """Return the row of an option."""
    return declared.name + _default(declared.default), declared.metadata["check"].takes, declared.metadata["help"]


def _default(value: Any) -> str:
    """Return '=default', an empty text for a key without a default."""
    if value is None or value is MISSING:
        return ""
    return "=" + str(list(value) if isinstance(value, tuple) else value).replace(" ", "").replace("'", "")


def _table(rows: Iterable[HelpRow], key_width: int, range_width: int) -> list[str]:
    """Return the lines of rows in columns."""
    return [
        line for key, takes, about in rows for line in _columns(f"  {key:{key_width}}  ", takes, about, range_width)
    ]


def _columns(head: str, takes: str, about: str, width: int) -> list[str]:
    """Return the lines of a key: range and meaning in columns; a range wider than its column stands above."""
    indent = len(head) + width + 2
    meaning = wrap(about, max(WIDTH - indent, 40)) or [""]
    if len(takes) > width:
        first, *more = wrap(takes, WIDTH - len(head))
        return [head + first, *(" " * len(head) + line for line in more), *(" " * indent + line for line in meaning)]
    return [f"{head}{takes:{width}}  {meaning[0]}".rstrip(), *(" " * indent + line for line in meaning[1:])]
