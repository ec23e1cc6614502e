"""Run one command: find the mode, parse the settings, print errors on one line, return the exit status."""

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
from ds2d2_yolo.cli.system_errors import system_error_message
from ds2d2_yolo.config.resources import resource_dir
from ds2d2_yolo.errors import BadUseError, DS2D2Error


class Terminated(KeyboardInterrupt):
    """SIGTERM was received; it ends a run as Ctrl-C does."""


def main(arguments: Sequence[str]) -> int:
    """Run one command.

    Args:
        arguments (Sequence[str]): Command-line arguments after the program's name.

    Returns:
        (int): Exit status: 0, 1 (failed), 2 (bad use), 130 (interrupted) or 143 (terminated).
    """
    mode, words = (arguments[0].lstrip("-"), list(arguments[1:])) if arguments else ("help", [])
    try:
        with _terminable():
            _run(mode, words)
    except KeyboardInterrupt as e:
        terminated = isinstance(e, Terminated) or isinstance(e.__cause__, Terminated)
        event = "terminated" if terminated else "interrupted"
        print(f"\nds2d2-yolo: {event}; go on with: {_continuation(mode, words, e)}", file=sys.stderr)
        return 143 if terminated else 130
    except BrokenPipeError:  # the reader of the output, such as 'head', has exited
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as e:
        if "verbose=True" in words:
            traceback.print_exc()
        system = None if isinstance(e, DS2D2Error) else system_error_message(e)
        message = (
            _one_line(e) if system is None else f"{system}; what was saved is whole, then {_next_step(mode, words)}"
        )
        print(f"ds2d2-yolo: {message}", file=sys.stderr)
        return e.status if isinstance(e, DS2D2Error) else _status(e)
    return 0


def _run(mode: str, words: list[str]) -> None:
    """Find the mode and run it."""
    mode = {"h": "help", "v": "version"}.get(mode, mode)
    if mode in REFUSED:
        raise BadUseError(REFUSED[mode])
    if mode in ("detect", "obb") and words:
        raise BadUseError(f"leave '{mode}' out, the model says its task: ds2d2-yolo {words[0]} ...")
    if mode not in MODES:
        near = get_close_matches(mode, MODES, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"the modes are {', '.join(MODES)}"
        raise BadUseError(f"unknown mode '{mode}': {hint}")
    if {"--help", "-h"} & set(words):
        _print_help([mode])
        return
    taken = {"cfg": 0, "version": 0, "completion": 1}.get(mode, len(words))  # number of words that the mode accepts
    if extra := _drop_verbose(mode, words[taken:]):
        raise BadUseError(f"'{extra[0]}': {mode} takes {taken or 'no'} word{'s' * (not taken)}: {MODES[mode].example}")
    if mode == "help":
        _print_help(words)
    elif mode == "data":
        _run_data(words)
    elif mode == "completion":
        print(script(words[0] if words else ""), end="")
    elif mode == "cfg":
        _print_cfg()
    elif mode == "version":
        print(__version__)
    else:
        check_ultralytics()
        settings = parse(_drop_verbose(mode, words))
        with load("bridge.upstream.devices:cpu_threads")():
            _show(load(MODES[mode].runs)(**settings))


def _run_data(words: list[str]) -> None:
    """List the data sets, or prepare one."""
    if words and (words[0] != "prepare" or len(words) < 2 or "=" in words[1]):
        raise BadUseError("say 'ds2d2-yolo data', or 'ds2d2-yolo data prepare dota|dior|dior-r|hit-uav source=...'")
    check_ultralytics()
    if words:
        _show(load("prepare:prepare")(words[1], **parse(_drop_verbose("data", words[2:]))))
    else:
        print(load("prepare:list_data")())


def _drop_verbose(mode: str, words: list[str]) -> list[str]:
    """Drop `verbose=` for a mode without such a key: there it only requests the traceback."""
    passing = load(MODES[mode].ultralytics_keys) if MODES[mode].ultralytics_keys else ()
    if MODES[mode].page or "verbose" in {*(f.name for f in MODES[mode].option_fields()), *passing}:
        return words
    return [word for word in words if not word.startswith("verbose=")]


def _print_help(modes: list[str]) -> None:
    """Print the usage, or the help of the named modes."""
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
    """Print the result of a mode, unless it is None."""
    if result is not None:
        print(result)


@contextmanager
def _terminable() -> Iterator[None]:
    """Handle SIGTERM like Ctrl-C inside the context: batch systems send it before they kill."""

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


def _continuation(mode: str, words: list[str], interruption: KeyboardInterrupt) -> str:
    """Return the command that continues: the same one, with 'resume' where the interruption asks for it."""
    named = any(w.startswith("resume") for w in words)
    if "TORCHELASTIC_RUN_ID" in os.environ:  # torchrun started this process; only rank 0 knows what is saved
        return "the same torchrun command" + ("" if named else ", with 'resume' behind it once an epoch is saved")
    resume = "resume" in interruption.args and not named
    return quoted(["ds2d2-yolo", mode, *words, *["resume"] * resume])


def quoted(command: list[str], windows: bool = os.name == "nt") -> str:
    """Quote a command for the shell: cmd.exe has no single quotes, other shells expand $ inside double quotes.

    Args:
        command (list[str]): Words of the command.
        windows (bool): Whether to quote for cmd.exe.

    Returns:
        (str): The command as typed.
    """
    return subprocess.list2cmdline(command) if windows else shlex.join(command)


def _next_step(mode: str, words: list[str]) -> str:
    """Return how to continue after the error of the machine is mended."""
    again = "the same command goes on"
    if mode == "train" and not any(w.startswith("resume") for w in words):
        return f"{again} with 'resume' behind it, or without if no epoch was saved yet"
    return again


def _one_line(error: Exception) -> str:
    """Return an error as one line; the type names an error of other packages."""
    first = (str(error).strip().splitlines() or [""])[0]
    return first if isinstance(error, DS2D2Error) else f"{type(error).__name__}: {first} (verbose=True shows more)"


def _status(error: Exception) -> int:
    """Return 2 for SyntaxError, which Ultralytics raises on bad settings, otherwise 1."""
    return 2 if isinstance(error, SyntaxError) else 1
