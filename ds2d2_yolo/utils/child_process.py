"""Work in a child process: a JSON file holds the request, another one the response.

The command of a child is `python -m MODULE REQUEST.json RESPONSE.json`; its module calls `serve`. The response file is
written only if the work succeeds. Otherwise the last line on standard error names the error, behind `ERROR_PREFIX`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.utils.atomic_files import write_json
from ds2d2_yolo.utils.threads import shorten_openmp_spin

ERROR_PREFIX = "ds2d2-yolo: "


class ChildError(DS2D2Error):
    """A child process failed; the message is one line."""


def run_child(
    module: str, request: Any, environment: Mapping[str, str] | None = None, show_output: bool = False
) -> Any:
    """Run a module as a child process, wait for it and return its response.

    Args:
        module (str): Name of the module, whose main part calls `serve`.
        request (Any): Request, of values that JSON knows.
        environment (Mapping[str, str] | None): Environment of the child, None for that of this process. The short spin
            of OpenMP threads is added, see `shorten_openmp_spin`.
        show_output (bool): Whether the child writes to this process's standard output and error.

    Returns:
        (Any): The response.

    Raises:
        ChildError: If the child fails, with its error or its exit status.
    """
    with tempfile.TemporaryDirectory() as folder:
        request_file, response_file = Path(folder, "request.json"), Path(folder, "response.json")
        write_json(request_file, request)
        output = None if show_output else subprocess.DEVNULL
        child = child_environment(base=os.environ if environment is None else environment)
        process = subprocess.run(
            child_command(module, request_file, response_file), env=child, stdout=output,
            stderr=None if show_output else subprocess.PIPE, check=False,
        )  # fmt: skip
        if process.returncode == 0 and response_file.is_file():
            return json.loads(response_file.read_text(encoding="utf-8"))
    printed = (process.stderr or b"").decode(errors="replace")
    last = printed.strip().splitlines()[-1:]
    status = ": ".join([f"its process ended with status {process.returncode}", *last])
    raise ChildError(reported_error(printed) or status)


def child_command(module: str, request: Path, response: Path) -> list[str]:
    """Return the command of a child process.

    Args:
        module (str): Name of the module, whose main part calls `serve`.
        request (Path): File of the request.
        response (Path): File that the response is written to.

    Returns:
        (list[str]): For `subprocess`, with this process's interpreter.
    """
    return [sys.executable, "-m", module, str(request), str(response)]


def child_environment(
    variables: Mapping[str, str] | None = None, base: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the environment of a child process.

    Args:
        variables (Mapping[str, str] | None): Variables that are set in it.
        base (Mapping[str, str] | None): Environment to start from, None for that of this process.

    Returns:
        (dict[str, str]): With the short spin of OpenMP threads.
    """
    environment = {**(os.environ if base is None else base), **(variables or {})}
    shorten_openmp_spin(environment)
    return environment


def reported_error(output: str) -> str | None:
    """Return the error that `serve` printed as the last line of an output, None if there is none."""
    last = (output.strip().splitlines() or [""])[-1]
    return last.removeprefix(ERROR_PREFIX) if last.startswith(ERROR_PREFIX) else None


def serve(work: Callable[[Any], Any], arguments: Sequence[str]) -> int:
    """Do the work of a child process: read the request, write the response.

    Args:
        work (Callable[[Any], Any]): Returns the response to a request, of values that JSON knows.
        arguments (Sequence[str]): Files of the request and of the response.

    Returns:
        (int): Exit status: 0, the status of a `DS2D2Error`, or 1 after another error, whose traceback is printed.
    """
    request_file, response_file = map(Path, arguments)
    try:
        write_json(response_file, work(json.loads(request_file.read_text(encoding="utf-8"))))
    except DS2D2Error as e:
        print(ERROR_PREFIX + _first_line(e), file=sys.stderr, flush=True)
        return e.status
    except Exception as e:
        traceback.print_exc()
        message = _first_line(e)
        text = f"{type(e).__name__}: {message}" if message else type(e).__name__
        print(ERROR_PREFIX + text, file=sys.stderr, flush=True)
        return 1
    return 0


def _first_line(error: Exception) -> str:
    """Return the first line of an error's message, which may be empty."""
    return (str(error).strip().splitlines() or [""])[0]
