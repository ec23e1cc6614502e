"""The command line in Ultralytics' style: `ds2d2-yolo MODE key=value ...`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from ds2d2_yolo.utils.threads import shorten_openmp_spin


def main(arguments: Sequence[str]) -> int:
    """Run one command (see `ds2d2_yolo.cli.dispatch.main`); Ctrl-C during the imports ends it quietly.

    Args:
        arguments (Sequence[str]): Command-line arguments after the program's name.

    Returns:
        (int): Exit status.
    """
    try:
        from ds2d2_yolo.cli.dispatch import main as run
    except KeyboardInterrupt:
        return 130
    return run(arguments)


def parse(arguments: Sequence[str]) -> dict[str, Any]:
    """Parse `key=value` arguments (see `ds2d2_yolo.cli.parsing.parse`).

    Args:
        arguments (Sequence[str]): Arguments after the mode.

    Returns:
        (dict[str, Any]): Settings.
    """
    from ds2d2_yolo.cli.parsing import parse as read

    return read(arguments)


def entrypoint() -> None:
    """Run the command line and exit with its status."""
    shorten_openmp_spin()  # before anything imports torch
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")  # Ultralytics would pip-install packages unasked
    sys.exit(main(sys.argv[1:]))
