"""One command: its mode found, its settings parsed, its error one line, its status 0, 1 or 2."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

from ds2d2_yolo import __version__
from ds2d2_yolo.bridge.upstream.compat import check_ultralytics
from ds2d2_yolo.cli.completion import script
from ds2d2_yolo.cli.help import help_of, usage
from ds2d2_yolo.cli.modes import MODES, REFUSED, load
from ds2d2_yolo.cli.parsing import parse
from ds2d2_yolo.cli.system_errors import fault_of
from ds2d2_yolo.config.resources import resource_dir
from ds2d2_yolo.errors import BadUseError, DS2D2Error


class Terminated(KeyboardInterrupt):
    """SIGTERM came: a run ends by it as by Ctrl-C."""


def main(arguments: Sequence[str]) -> int:
    """Run one command.

    Args:
        arguments (Sequence[str]): What was typed after the program's name.

    Returns:
        (int): Exit status: 0, 1 (failed), 2 (bad use), 130 (interrupted) or 143 (terminated).
    """
    mode, rest = (arguments[0].lstrip("-"), list(arguments[1:])) if arguments else ("help", [])
    try:
        with _terminable():
            _run(mode, rest)
    except KeyboardInterrupt as e:
        terminated = isinstance(e, Terminated) or isinstance(e.__cause__, Terminated)
        what = "terminated" if terminated else "interrupted"
        print(f"\nds2d2-yolo: {what}; go on with: {_going_on(mode, rest, e)}", file=sys.stderr)
        return 143 if terminated else 130
    except BrokenPipeError:  # whoever read the output, such as 'head', has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as e:
        if "verbose=True" in rest:
            traceback.print_exc()
        fault = None if isinstance(e, DS2D2Error) else fault_of(e)
        said = _one_line(e) if fault is None else f"{fault}; what was saved is whole, then {_after(mode, rest)}"
        print(f"ds2d2-yolo: {said}", file=sys.stderr)
        return e.status if isinstance(e, DS2D2Error) else _status(e)
    return 0


def _run(mode: str, rest: list[str]) -> None:
    """Find the mode and run it."""
    mode = {"h": "help", "v": "version"}.get(mode, mode)
    if mode in REFUSED:
        raise BadUseError(REFUSED[mode])
    if mode in ("detect", "obb") and rest:
        raise BadUseError(f"leave '{mode}' out, the model says its task: ds2d2-yolo {rest[0]} ...")
    if mode not in MODES:
        near = get_close_matches(mode, MODES, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"the modes are {', '.join(MODES)}"
        raise BadUseError(f"unknown mode '{mode}': {hint}")
    if {"--help", "-h"} & set(rest):
        _print_help([mode])
        return
    taken = {"cfg": 0, "version": 0, "completion": 1}.get(mode, len(rest))  # words behind the mode
    if more := _without_ours(mode, rest[taken:]):
        raise BadUseError(f"'{more[0]}': {mode} takes {taken or 'no'} word{'s' * (not taken)}: {MODES[mode].example}")
    if mode == "help":
        _print_help(rest)
    elif mode == "data":
        _run_data(rest)
    elif mode == "completion":
        print(script(rest[0] if rest else ""), end="")
    elif mode == "cfg":
        _print_cfg()
    elif mode == "version":
        print(__version__)
    else:
        check_ultralytics()
        settings = parse(_without_ours(mode, rest))
        with load("bridge.upstream.devices:cpu_threads")():
            _show(load(MODES[mode].runs)(**settings))


def _run_data(words: list[str]) -> None:
    """List the data sets, or prepare one."""
    if words and (words[0] != "prepare" or len(words) < 2 or "=" in words[1]):
        raise BadUseError("say 'ds2d2-yolo data', or 'ds2d2-yolo data prepare dota|dior|dior-r|hit-uav source=...'")
    check_ultralytics()
    if words:
        _show(load("prepare:prepare")(words[1], **parse(_without_ours("data", words[2:]))))
    else:
        print(load("prepare:list_data")())


def _without_ours(mode: str, words: list[str]) -> list[str]:
    """Leave `verbose=` out for a mode that has no such key: there it asks for the traceback alone."""
    passing = load(MODES[mode].passing) if MODES[mode].passing else ()
    if MODES[mode].page or "verbose" in {*(f.name for f in MODES[mode].option_fields()), *passing}:
        return words
    return [word for word in words if not word.startswith("verbose=")]


def _print_help(modes: list[str]) -> None:
    """Print the usage, or the help of the modes that were named."""
    modes = ["data"] if modes == ["data", "prepare"] else modes
    for mode in modes:
        if mode not in MODES:
            near = get_close_matches(mode, MODES, n=1)
            raise BadUseError(f"unknown mode '{mode}'" + (f": did you mean '{near[0]}'?" if near else ""))
    print("\n\n".join(help_of(mode) for mode in modes) or usage())


def _print_cfg() -> None:
    """Print the commented settings and the names of the recipes."""
    from ds2d2_yolo.config.recipes import recipe_names

    print((resource_dir("cfg") / "default.yaml").read_text(encoding="utf-8"), end="")
    print(f"\n# Recipes: {', '.join(recipe_names())}")


def _show(result: Any) -> None:
    """Print what a mode returned, if anything."""
    if result is not None:
        print(result)


@contextmanager
def _terminable() -> Iterator[None]:
    """Take SIGTERM like Ctrl-C while the context lasts; batch systems send it before they kill."""

    def end(*_: object) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _going_on(mode: str, rest: list[str], interruption: KeyboardInterrupt) -> str:
    """Return the command that goes on: the same one, with 'resume' where the interruption says that it takes it."""
    words = [mode, *rest]
    if "resume" in interruption.args and not any(w.startswith("resume") for w in rest):
        words.append("resume")
    return quoted(["ds2d2-yolo", *words])


def quoted(command: list[str], windows: bool = os.name == "nt") -> str:
    """Return a command as it is typed: cmd.exe knows no single quotes, other shells leave no $ alone in double ones."""
    return subprocess.list2cmdline(command) if windows else shlex.join(command)


def _after(mode: str, rest: list[str]) -> str:
    """Return what to do once a fault of the machine is mended."""
    again = "the same command goes on"
    if mode == "train" and not any(w.startswith("resume") for w in rest):
        return f"{again} with 'resume' behind it, or without if no epoch was saved yet"
    return again


def _one_line(error: Exception) -> str:
    """Return an error as one line; one that is not ours is named by its type."""
    first = (str(error).strip().splitlines() or [""])[0]
    return first if isinstance(error, DS2D2Error) else f"{type(error).__name__}: {first} (verbose=True shows more)"


def _status(error: Exception) -> int:
    """Return 2 for what Ultralytics raises on bad settings, otherwise 1."""
    return 2 if isinstance(error, SyntaxError) else 1
