"""The child process of `prepare_process`: `python -m ds2d2_yolo.bridge.training.prepare_worker REQUEST RESPONSE`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from ds2d2_yolo.bridge.models.loading import build_student
from ds2d2_yolo.bridge.training.run_setup import RunRequest, begin_run, prepare_run
from ds2d2_yolo.bridge.upstream.devices import cpu_threads
from ds2d2_yolo.utils.child_process import serve


@cpu_threads()
def prepare(keys: dict[str, Any]) -> tuple[dict[str, str], str | None]:
    """Prepare and begin a run.

    Args:
        keys (dict[str, Any]): DS2D2 and Ultralytics settings of the run.

    Returns:
        files (dict[str, str]): Contents of the report's files by name.
        amplifier (str | None): Path of the amplifier.
    """
    request = RunRequest.of(keys)
    args, _ = request.arguments()
    run = prepare_run(args, request.settings)
    with tempfile.TemporaryDirectory() as folder:
        return begin_run(run, build_student(run.args, run.data), Path(folder))


if __name__ == "__main__":
    sys.exit(serve(prepare, sys.argv[1:]))
