"""Check on a GPU what needs one, in 12 minutes; each piece stores its result, so that a cut leaves the earlier ones.

    PYTHONPATH=. python tools/gpu_check.py gpu-check                                       the drawn scenes
    PYTHONPATH=. python tools/gpu_check.py gpu-check --data hit-uav.yaml --teacher T.pt    other data
    PYTHONPATH=. python tools/gpu_check.py gpu-check --again compile                       one piece once more
    PYTHONPATH=. python tools/gpu_check.py small --small                                   tiny, on a CPU

Pieces run most valuable first, each in a process with a time limit. No piece starts after `--minutes`. Without
`--again`, a second run does the pieces that have no result, then those that failed or timed out. The folder holds
NAME.json and NAME.log of each piece, gpu_check.json with all results and the environment, and gpu_check.md, the tables.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from gpu_pieces.runner import Outcome, Piece, run_all, run_piece
from gpu_pieces.table import write_summary

from ds2d2_yolo.utils.atomic_files import write_json
from ds2d2_yolo.utils.environment import source_revision

STEPS, COST = "gpu_pieces.training:train_steps", "gpu_pieces.cost:step_cost"
ENVIRONMENT = Piece("environment", "gpu_pieces.environment:environment", 120, needs_cuda=False)
PIECES = (  # most valuable first
    Piece("amp_fp16", STEPS, 90, keys={"settings": {"amp": True}, "dtype": "float16"}),
    Piece("cost_640", COST, 90, needs_cuda=False, keys={"imgsz": 640, "small_imgsz": 64}),
    Piece("resume", "gpu_pieces.resume:resume", 180, needs_cuda=False),
    Piece("autobatch", STEPS, 90, keys={"settings": {"batch": -1}, "all_images": True, "dtype": "float16"}),
    Piece("kernel", "gpu_pieces.kernel:explicit_kernel", 45),
    Piece("cost_1024", COST, 120, needs_cuda=False, keys={"imgsz": 1024, "small_imgsz": 96}),
    Piece("amp_bf16", STEPS, 60, keys={"settings": {"amp": "bf16"}, "dtype": "bfloat16"}),
    Piece("channels_last", STEPS, 60, keys={"settings": {"channels_last": True}, "dtype": "float16"}),
    Piece("float32", STEPS, 60, needs_cuda=False, keys={"settings": {"amp": False}, "dtype": "float32"}),
    Piece("compile", STEPS, 150, keys={"settings": {"compile": True}, "dtype": "float16"}),
    Piece("gpu_tests", "gpu_pieces.gpu_tests:gpu_tests", 240),
    Piece("tensorrt", "gpu_pieces.engine:engine_parity", 180),
)  # fmt: skip
SMALL_FACTOR = 5  # on the time limits of the small form: a busy processor is slow


def options_of(argv: list[str] | None) -> argparse.Namespace:
    """Parse the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="folder of the results")
    parser.add_argument("--minutes", type=float, help="for all pieces, 12 unless --small")
    parser.add_argument("--data", help="data YAML with oriented boxes, the built-in drawn scenes unless given")
    parser.add_argument("--teacher", help="checkpoint trained on --data, the shipped one unless given")
    parser.add_argument("--student", help="model YAML or checkpoint, yolov8n-obb.yaml unless given")
    parser.add_argument("--imgsz", type=int, default=640, help="of the trainings")
    parser.add_argument("--batch", type=int, default=16, help="of the trainings and of the step cost")
    parser.add_argument("--again", nargs="+", default=[], choices=[p.name for p in PIECES], metavar="NAME")
    parser.add_argument("--only", nargs="+", choices=[p.name for p in PIECES], metavar="NAME", help="these pieces only")
    parser.add_argument("--small", action="store_true", help="tiny sizes on the CPU, pieces that need CUDA are skipped")
    arguments = parser.parse_args(argv)
    if arguments.data and not arguments.teacher:
        parser.error("--data needs --teacher: the shipped teacher knows the classes of the drawn scenes only")
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Run the pieces and write the summary after each of them.

    Args:
        argv (list[str] | None): Arguments, None for those of the process.

    Returns:
        (int): Exit status: 1 if a piece that ran is not ok, 2 if the folder holds results of other options.
    """
    arguments = options_of(argv)
    folder = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    began, factor = time.monotonic(), SMALL_FACTOR if arguments.small else 1
    minutes = arguments.minutes or 12 * factor
    options: dict[str, Any] = {
        key: getattr(arguments, key) for key in ("data", "teacher", "student", "imgsz", "batch", "small")
    } | {"device": "cpu" if arguments.small else "0"}
    if (refused := _other_options(folder, options)) is not None:
        print(refused, file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, _end)  # so that the process of the running piece is ended too
    revision = source_revision()
    environment_outcome = run_piece(ENVIRONMENT, options, folder, ENVIRONMENT.seconds * factor, revision)
    if environment_outcome.status != "ok":
        print(
            f"the environment cannot be read: {environment_outcome.reason}; see {folder / 'environment.log'}",
            file=sys.stderr,
        )
        return 1
    environment = {**environment_outcome.figures, "revision": revision or "unknown"}
    statuses: list[str] = []

    def report(name: str, outcome: Outcome | None) -> None:
        if outcome is None:
            print(f"{time.monotonic() - began:4.0f} s  {name} ...", flush=True)
            return
        statuses.append(outcome.status)
        print(f"{time.monotonic() - began:4.0f} s  {name}: {outcome.status} {outcome.reason}".rstrip(), flush=True)
        write_summary(PIECES, folder, environment)

    pieces = [
        Piece(p.name, p.function, p.seconds * factor, p.needs_cuda, p.keys)
        for p in PIECES
        if not arguments.only or p.name in arguments.only
    ]
    left = 60 * minutes - (time.monotonic() - began)
    cuda = environment["GPU"] != "none"
    run_all(pieces, options, folder, left, cuda, revision, arguments.again, report)
    write_summary(PIECES, folder, environment)
    print((folder / "gpu_check.md").read_text(encoding="utf-8"))
    return int(not {"ok", "skipped"} >= set(statuses))


def _other_options(folder: Path, options: dict[str, Any]) -> str | None:
    """Store the options with the results; return a message if the folder holds results of other ones."""
    file = folder / "options.json"
    if not file.is_file():
        write_json(file, options)
        return None
    stored = json.loads(file.read_text(encoding="utf-8"))
    changed = [f"{key} {stored.get(key)}" for key in options if stored.get(key) != options[key]]
    return f"{folder} holds results of {', '.join(changed)}: choose another folder" if changed else None


def _end(*_: object) -> NoReturn:
    """Leave by an exception, which ends the process of the running piece."""
    raise SystemExit(143)


if __name__ == "__main__":
    sys.exit(main())
