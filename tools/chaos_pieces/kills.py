"""Kills of one command at random moments, and what is looked at after each of them."""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos_pieces.files import complete_files, epochs_in, fault, left_over, worse_best
from chaos_pieces.processes import kill, start, wait
from chaos_pieces.targets import EPOCHS, Target


@dataclass
class Count:
    """What happened to a command.

    Attributes:
        kills (int): Times that it was killed.
        runs (int): Times that it was started.
        finished (int): Times that it came to its end after kills.
        checked (int): Files that were looked at.
        repeated (int): Epochs that were run twice.
        lost (list[str]): What was wrong.
    """

    kills: int = 0
    runs: int = 0
    finished: int = 0
    checked: int = 0
    repeated: int = 0
    lost: list[str] = field(default_factory=list)


def kill_moment(target: Target, seconds: float, rng: random.Random) -> Callable[[], bool]:
    """Return a question that becomes true when it is time to kill.

    Half of the moments are any; the others lie in a write, told by a hidden name that appears, or, for a training,
    behind the last epoch.
    """
    began, kind = time.monotonic(), rng.random()
    after, nth, pause = rng.uniform(0, seconds), rng.randint(1, 4), rng.choice([0.0, rng.uniform(0, 0.1)])
    if kind < 0.5:
        return lambda: time.monotonic() - began > after
    if kind > 0.8 and target.resumes:
        rows = target.folders[0] / "results.csv"
        nth, pause = 1, rng.uniform(0, 2.0)
        busy = lambda: _lines(rows) > EPOCHS  # noqa: E731
    else:
        busy = lambda: any(n[0] == "." and n[-5:] != ".lock" for d in target.busy for n in _names(d))  # noqa: E731
    writes: list[float] = []
    state = {"busy": False}

    def due() -> bool:
        now = busy()
        if now and not state["busy"]:
            writes.append(time.monotonic())
        state["busy"] = now
        return len(writes) >= nth and time.monotonic() - writes[nth - 1] >= pause

    return due


def _names(folder: Path) -> list[str]:
    """Return the names in a folder, none if it is not there."""
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _lines(file: Path) -> int:
    """Return the lines of a file, 0 if it is not there."""
    try:
        return file.read_bytes().count(b"\n")
    except OSError:
        return 0


def check_files(target: Target, count: Count) -> None:
    """Read all files of a command that was killed or has ended."""
    for file in complete_files(target.folders):
        count.checked += 1
        if wrong := fault(file):
            count.lost.append(wrong)
    if target.name == "train" and (wrong := worse_best(target.folders[0])):
        count.lost.append(wrong)


def check_epochs(run: Path, before: int, count: Count) -> int:
    """Compare the rows of a killed training with its checkpoint; return the epochs that are safe from now on.

    At most the running epoch may be repeated, and no epoch that was safe before.
    """
    written, saved = epochs_in(run)
    if saved < 0:
        return before
    count.repeated += written - saved
    if not (0 <= written - saved <= 1 and saved >= before):
        count.lost.append(f"{written} rows, {saved} epochs saved, {before} before")
    return saved


def run_to_the_end(target: Target, kills: int, seconds: float, count: Count, rng: random.Random, log: Path) -> None:
    """Start a command until it ends, and kill it as long as there are kills left."""
    words, saved = target.words, 0
    while True:
        count.runs += 1
        process = start(words, log)
        due = kill_moment(target, seconds, rng) if count.kills < kills else lambda: False
        status = wait(process, due)
        log_text = log.read_text(encoding="utf-8", errors="replace")
        if status == 2 and "start the same command again without 'resume'" in log_text:
            words = target.words
            continue
        if status is not None:
            if status != 0 and not (status == 2 and "is finished, nothing to resume" in log_text):
                count.lost.append(f"status {status}: {log_text.strip().splitlines()[-1:]}")
            return
        count.kills += 1
        if wrong := kill(process):
            count.lost.append(wrong)
        check_files(target, count)
        if target.name == "train":
            saved = check_epochs(target.folders[0], saved, count)
        words = [*target.words, "resume"] if target.resumes else target.words


def check_end(target: Target, expected: Any, count: Count) -> None:
    """Check the files of a finished command, and that it ended as one that was never killed."""
    check_files(target, count)
    count.lost += [f"left over: {f}" for f in left_over(target.folders)]
    try:
        if (state := target.state()) != expected:
            count.lost.append(f"{target.name} ended otherwise than without kills: {state} instead of {expected}")
    except (OSError, StopIteration, ValueError) as e:
        count.lost.append(f"{target.name} has no result: {e}")


def go_through(target: Target, kills: int, seconds: float, expected: Any, rng: random.Random, work: Path) -> Count:
    """Kill a command so many times, each time going on with it, and begin anew whenever it is finished.

    Args:
        target (Target): The command.
        kills (int): Number of kills.
        seconds (float): Time that the command takes without a kill.
        expected (Any): State of an uninterrupted run.
        rng (random.Random): Source of the moments.
        work (Path): Folder of the logs, which is copied where something was lost.

    Returns:
        (Count): What happened.
    """
    count, log = Count(), work / f"{target.name}.log"
    while count.kills < kills:
        target.begin()
        run_to_the_end(target, kills, seconds, count, rng, log)
        count.finished += 1
        check_end(target, expected, count)
        if count.lost:
            shutil.copytree(work, work.with_name(f"{work.name}-{target.name}-{count.kills}"), dirs_exist_ok=True)
            for text in count.lost:
                print(f"  {text}", flush=True)
            break
    return count
