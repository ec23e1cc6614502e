"""The child process of `prepare_process`: `python -m ds2d2_yolo.bridge.training.prepare_worker REQUEST RESPONSE`."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from ds2d2_yolo.bridge.models.loading import build_student
from ds2d2_yolo.bridge.training.run_setup import RunRequest, begin_run, prepare_run
from ds2d2_yolo.bridge.upstream.devices import cpu_threads
from ds2d2_yolo.errors import DS2D2Error


@cpu_threads()
def main(request_file: str, response_file: str) -> None:
    """Prepare and begin the run of a request, and write the report's files and the amplifier's path.

    Args:
        request_file (str): JSON with the run's settings.
        response_file (str): JSON to write.
    """
    request = RunRequest.of(json.loads(Path(request_file).read_text(encoding="utf-8")))
    args, _ = request.arguments()
    run = prepare_run(args, request.settings)
    with tempfile.TemporaryDirectory() as folder:
        response = begin_run(run, build_student(run.args, run.data), Path(folder))
    Path(response_file).write_text(json.dumps(response), encoding="utf-8")


if __name__ == "__main__":
    try:
        main(sys.argv[1], sys.argv[2])
    except DS2D2Error as e:
        sys.exit(f"ds2d2-yolo: {e}")
