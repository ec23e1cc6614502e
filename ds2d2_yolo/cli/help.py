"""What `help` prints: the modes, and the keys of one with default, range and meaning."""

from __future__ import annotations

from dataclasses import MISSING
from textwrap import wrap
from typing import Any

from ds2d2_yolo.cli.modes import MODES, NEEDS, Mode, load

WIDTH = 120
FOOTER = """'ds2d2-yolo help MODE' lists its keys. A training that was cut off goes on with 'resume' behind it.
Exit status: 0, 1 (failed), 2 (bad use), 130 (interrupted), 143 (terminated). verbose=True shows a traceback."""


def usage() -> str:
    """Return the list of all modes."""
    modes = "\n".join(f"  {name:11}{mode.about}" for name, mode in MODES.items())
    return f"ds2d2-yolo MODE key=value ...\n\n{modes}\n\n  {MODES['train'].example}\n\n{FOOTER}"


def help_of(name: str) -> str:
    """Return the help of a mode.

    Args:
        name (str): A name of `MODES`.

    Returns:
        (str): What it is for, an example and its keys with default, range and meaning.
    """
    mode = MODES[name]
    lines = [f"ds2d2-yolo {name}: {mode.about}", "", f"  {mode.example}"]
    if rows := _rows(mode):
        widths = [max(len(row[i]) for row in rows) for i in range(2)]
        widths[1] = min(widths[1], 28)
        lines += ["", "Keys of its own:"]
        for key, takes, about in rows:
            lines += _columns(f"  {key:{widths[0]}}  ", takes, about, widths[1])
    if mode.notes:
        lines += ["", load(mode.notes)]
    if mode.page:
        lines += ["", f"Further keys are Ultralytics': https://docs.ultralytics.com/modes/{mode.page}"]
    return "\n".join(lines)


def _rows(mode: Mode) -> list[tuple[str, str, str]]:
    """Return key with default, range and meaning of a mode's own keys."""
    rows = [
        (f.name + _default(f.default), f.metadata["check"].takes, f.metadata["help"])
        for f in mode.option_fields()
        if f.metadata["help"]
    ]
    return rows[:1] + [(name, *NEEDS[name]) for name in mode.needs] + rows[1:]


def _default(value: Any) -> str:
    """Return '=default', nothing where a key has none."""
    if value is None or value is MISSING:
        return ""
    return "=" + str(list(value) if isinstance(value, tuple) else value).replace(" ", "").replace("'", "")


def _columns(head: str, takes: str, about: str, width: int) -> list[str]:
    """Return the lines of a key: range and meaning in columns; a range wider than its column stands above."""
    indent = len(head) + width + 2
    meaning = wrap(about, max(WIDTH - indent, 40)) or [""]
    if len(takes) > width:
        first, *more = wrap(takes, WIDTH - len(head))
        return [head + first, *(" " * len(head) + line for line in more), *(" " * indent + line for line in meaning)]
    return [f"{head}{takes:{width}}  {meaning[0]}".rstrip(), *(" " * indent + line for line in meaning[1:])]
