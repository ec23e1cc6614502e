"""Kill every command at random moments, run it again until it finishes, and look at its files after each kill.

    PYTHONPATH=. python tools/chaos.py                    # 100 kills and more, some 20 minutes on one core
    PYTHONPATH=. python tools/chaos.py only=train,prepare train=12 work=chaos seed=7

A kill is SIGKILL to the whole process group. It makes its own data and untrained models. A command runs in a process
that is forked from this one, which has the modules loaded: a start costs next to nothing, and the kills fall on work
instead of imports. The status is 1 if a file that claims to be whole was not, if more than the running epoch had to be
repeated, if something was left over, or if an interrupted run did not end as an uninterrupted one.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

from chaos_pieces.kills import Count, go_through
from chaos_pieces.processes import start, wait
from chaos_pieces.targets import targets

from ds2d2_yolo.utils.threads import shorten_openmp_spin

MODULES = (
    "cli",
    "bridge.training.amplify",
    "bridge.api",
    "bridge.inference.export",
    "compare.run",
    "deploy",
    "evaluate",
    "prepare.run",
)
KILLS = {"train": 45, "amplify": 16, "val": 8, "prepare": 14, "export": 8, "compare": 14}
HEAD = (
    "| command | kills | starts | finished | files looked at | epochs repeated | lost or wrong |\n"
    + "| --- " * 7
    + "|\n"
)


def row_of(name: str, count: Count, seconds: float | None = None) -> str:
    """Return a command's row of the table."""
    cells = [name, count.kills, count.runs, count.finished, count.checked, count.repeated, len(count.lost)]
    return f"| {' | '.join(map(str, cells))} |" + (f"  {seconds:.0f} s" if seconds is not None else "")


def prepare_environment(options: dict[str, str]) -> Path:
    """Make the folder of the work and keep everything in it; import what the commands need.

    Args:
        options (dict[str, str]): Options of the command line.

    Returns:
        (Path): The folder.
    """
    work = Path(options.get("work") or tempfile.mkdtemp(prefix="ds2d2-chaos-")).resolve()
    work.mkdir(parents=True, exist_ok=True)
    if any(work.iterdir()):
        sys.exit(f"chaos: {work} is not empty")
    os.environ |= {
        "YOLO_CONFIG_DIR": str(work / "config"), "YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false",
        "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled",
    }  # fmt: skip
    shorten_openmp_spin()
    (work / "config").mkdir()
    for module in MODULES:
        import_module(f"ds2d2_yolo.{module}")
    return work


def main(arguments: list[str]) -> int:
    """Kill, check, print the table.

    Args:
        arguments (list[str]): Options as KEY=VALUE.

    Returns:
        (int): 1 if anything was lost or wrong, else 0.
    """
    options = dict(a.split("=", 1) for a in arguments)
    if unknown := options.keys() - {*KILLS, "work", "seed", "only", "teach"}:
        sys.exit(f"chaos: unknown {', '.join(unknown)}; the keys are {', '.join(KILLS)}, only, teach, work, seed")
    work = prepare_environment(options)
    only = options.get("only", ",".join(KILLS)).split(",")
    needed = {*only, *(["amplify"] if {"train", "compare"} & {*only} else [])}  # those take the kept amplifier
    counts: dict[str, Count] = {}
    for target in [t for t in targets(work, int(options.get("teach", 150))) if t.name in needed]:
        began = time.monotonic()
        log = work / f"{target.name}.log"
        target.begin()
        if wait(start(target.words, log), lambda: False):
            sys.exit(f"chaos: {target.name} fails without a kill, see {log}")
        seconds, expected = time.monotonic() - began, target.state()
        if target.name not in only:
            continue
        print(f"{target.name}: {seconds:.0f} s without a kill", flush=True)
        rng = random.Random(f"{options.get('seed', 0)} {target.name}")
        kills = int(options.get(target.name, KILLS[target.name]))
        counts[target.name] = go_through(target, kills, seconds, expected, rng, work)
        print(row_of(target.name, counts[target.name], time.monotonic() - began), flush=True)
    total = Count(
        *(sum(getattr(c, k) for c in counts.values()) for k in ("kills", "runs", "finished", "checked", "repeated"))
    )
    lost = sum(len(c.lost) for c in counts.values())
    print("\n" + HEAD + "\n".join(row_of(name, c) for name, c in counts.items()))
    print(f"{row_of('all', total)[: -len(' 0 |')]} {lost} |")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
