"""Runs pieces one after the other, each in a process with a time limit; results are files, so that a cut keeps them.

A piece is a function `(options, save) -> figures`. Its process writes the result file; `save(figures)` writes what is
measured so far, which a crash, a hang or a kill then leaves. This module imports neither torch nor Ultralytics.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ds2d2_yolo.utils.atomic_files import write_json
from ds2d2_yolo.utils.child_process import child_environment

TOOLS = Path(__file__).resolve().parents[1]
NEEDS_CUDA = "needs CUDA"
MIN_SECONDS = 5.0  # a piece is not started with less time than this
Save = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Piece:
    """One check.

    Attributes:
        name (str): Name of its result file and of `--again`.
        function (str): 'module:function', imported in the piece's process.
        seconds (float): Wall-clock limit.
        needs_cuda (bool): Whether it is skipped without a CUDA device.
        keys (dict[str, Any]): Added to the options that the function receives.
    """

    name: str
    function: str
    seconds: float
    needs_cuda: bool = True
    keys: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """Result of a piece.

    Attributes:
        status (str): 'ok', 'failed', 'timeout' or 'skipped'; 'unfinished' while its process runs.
        reason (str): Why it is not 'ok', one line.
        figures (dict[str, Any]): What was measured, of values that JSON knows.
        seconds (float): Wall-clock time.
        revision (str | None): Commit of this package.
    """

    status: str
    reason: str = ""
    figures: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    revision: str | None = None


class Skip(Exception):
    """Raised by a piece that cannot run here; the message is the reason."""


def result_file(folder: Path, name: str) -> Path:
    """Return the result file of a piece."""
    return folder / f"{name}.json"


def load_outcome(folder: Path, name: str) -> Outcome | None:
    """Return the result of a piece, None if there is none.

    A result that stayed 'unfinished' belongs to a process that was cut; it becomes 'failed' with its figures.
    """
    try:
        outcome = Outcome(**json.loads(result_file(folder, name).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    if outcome.status != "unfinished":
        return outcome
    return replace(outcome, status="failed", reason="cut before its end")


def queue_of(pieces: Sequence[Piece], folder: Path, again: Sequence[str]) -> list[Piece]:
    """Return the pieces to run: those without a result and of `again` first, then those that failed or timed out."""
    earlier = {p.name: load_outcome(folder, p.name) for p in pieces}
    fresh = [p for p in pieces if p.name in again or earlier[p.name] is None]
    return fresh + [p for p in pieces if p not in fresh and not _done(earlier[p.name])]


def _done(outcome: Outcome | None) -> bool:
    """Return whether a piece need not run again; one that lacked CUDA may find it now."""
    if outcome is None:
        return False
    return outcome.status == "ok" or (outcome.status == "skipped" and outcome.reason != NEEDS_CUDA)


def run_piece(piece: Piece, options: Mapping[str, Any], folder: Path, limit: float, revision: str | None) -> Outcome:
    """Run a piece in a process of its own, end the process and all that it started, and store the result.

    Args:
        piece (Piece): The piece.
        options (Mapping[str, Any]): Options of the function, of values that JSON knows.
        folder (Path): Folder of the results; the output of the process goes to NAME.log.
        limit (float): Seconds; the process is killed after them.
        revision (str | None): Stored in the result.

    Returns:
        (Outcome): The stored result.
    """
    request, response = folder / "work" / f"{piece.name}.request.json", result_file(folder, piece.name)
    write_json(request, {**options, **piece.keys, "folder": str(folder / "work" / piece.name)})
    response.unlink(missing_ok=True)
    paths = [str(TOOLS), str(TOOLS.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = child_environment({"PYTHONPATH": os.pathsep.join(paths)})
    command = [sys.executable, "-m", "gpu_pieces.child", piece.function, str(request), str(response)]
    began, timed_out = time.monotonic(), False
    with (folder / f"{piece.name}.log").open("wb") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            timed_out = True
        finally:
            with suppress(ProcessLookupError):  # the whole group: loader workers outlive a killed training
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    seconds = round(time.monotonic() - began, 1)
    outcome = replace(_outcome(response, timed_out, limit, process.returncode), seconds=seconds, revision=revision)
    write_json(response, asdict(outcome))
    return outcome


def _outcome(response: Path, timed_out: bool, limit: float, status: int) -> Outcome:
    """Return what a process left, with the status of its end."""
    try:
        left = Outcome(**json.loads(response.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        left = Outcome("unfinished")
    if left.status != "unfinished":
        return left
    if timed_out:
        return Outcome("timeout", f"killed after {limit:.0f} s", left.figures)
    return Outcome("failed", f"its process ended with status {status}", left.figures)


def run_all(
    pieces: Sequence[Piece],
    options: Mapping[str, Any],
    folder: Path,
    seconds: float,
    cuda: bool,
    revision: str | None = None,
    again: Sequence[str] = (),
    report: Callable[[str, Outcome | None], None] = lambda *_: None,
) -> None:
    """Run the pieces that are not done until the time is spent.

    Args:
        pieces (Sequence[Piece]): The most valuable first.
        options (Mapping[str, Any]): See `run_piece`.
        folder (Path): Folder of the results.
        seconds (float): Time for all pieces; the last one gets what remains of it.
        cuda (bool): Whether there is a CUDA device.
        revision (str | None): Stored in the results.
        again (Sequence[str]): Names of pieces that run although they are done.
        report (Callable): Called with a name and None before a piece, and with its result after it.
    """
    end = time.monotonic() + seconds
    for piece in queue_of(pieces, folder, again):
        if piece.needs_cuda and not cuda:
            outcome = Outcome("skipped", NEEDS_CUDA, revision=revision)
            write_json(result_file(folder, piece.name), asdict(outcome))
        else:
            remaining = end - time.monotonic()
            if remaining < MIN_SECONDS:
                continue  # the skipped ones that follow cost nothing
            report(piece.name, None)
            outcome = run_piece(piece, options, folder, min(piece.seconds, remaining), revision)
        report(piece.name, outcome)
