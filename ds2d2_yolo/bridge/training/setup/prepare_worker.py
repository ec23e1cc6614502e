"""The child process of `prepare_process`, by `python -m`: prepare_worker REQUEST RESPONSE."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from ds2d2_yolo.bridge.models.loading import build_student
from ds2d2_yolo.bridge.training.setup.run_setup import RunRequest, begin_run, prepare_run
from ds2d2_yolo.bridge.upstream.devices import cpu_threads
from ds2d2_yolo.utils.child_process import serve


@cpu_threads()
def prepare(job: dict[str, Any]) -> tuple[dict[str, str], str | None]:
    """Prepare and begin a run.

    Args:
        job (dict[str, Any]): `keys`, the DS2D2 and Ultralytics settings of the run, and its number of `processes`.

    Returns:
        files (dict[str, str]): Contents of the report's files by name.
        amplifier (str | None): Path of the amplifier.
    """
    request = RunRequest.of(job["keys"])
    args, _ = request.arguments()
    run = replace(prepare_run(args, request.settings), processes=job["processes"])
    with tempfile.TemporaryDirectory() as folder:
        return begin_run(run, build_student(run.args, run.data), Path(folder))


if __name__ == "__main__":
    sys.exit(serve(prepare, sys.argv[1:]))
