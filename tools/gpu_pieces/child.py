"""The process of one piece: `python -m gpu_pieces.child MODULE:FUNCTION REQUEST.json RESULT.json`."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Mapping
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from ds2d2_yolo.utils.atomic_files import write_json
from gpu_pieces.runner import Outcome, Skip


def main(function: str, request: str, result: str) -> int:
    """Call a piece's function and write its result.

    Args:
        function (str): 'module:function'.
        request (str): JSON file of the options.
        result (str): File to write; it says 'unfinished' until the function returns.

    Returns:
        (int): Exit status.
    """
    options = json.loads(Path(request).read_text(encoding="utf-8"))
    figures: dict[str, Any] = {}

    def write(status: str, reason: str = "") -> None:
        write_json(Path(result), asdict(Outcome(status, reason, figures)))

    def save(measured: Mapping[str, Any]) -> None:
        figures.update(measured)
        write("unfinished")

    save({})
    module, name = function.split(":")
    try:
        figures.update(getattr(import_module(module), name)(options, save))
    except Skip as e:
        write("skipped", str(e))
    except Exception as e:
        traceback.print_exc()
        write("failed", f"{type(e).__name__}: {(str(e).strip().splitlines() or [''])[0]}")
        return 1
    else:
        write("ok")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
