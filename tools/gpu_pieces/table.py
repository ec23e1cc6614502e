"""The merged JSON file and the Markdown tables of all pieces."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ds2d2_yolo.utils.atomic_files import write_atomically, write_json
from ds2d2_yolo.utils.tables import markdown_table
from gpu_pieces.runner import Outcome, Piece, load_outcome

ROWS = "rows"  # key of figures that are a table: name of a row -> column -> value


def write_summary(pieces: Sequence[Piece], folder: Path, environment: Mapping[str, Any]) -> None:
    """Write gpu_check.json and gpu_check.md.

    Args:
        pieces (Sequence[Piece]): All pieces, in the order of the table.
        folder (Path): Folder of their results and of the two files.
        environment (Mapping[str, Any]): GPU, versions and revision.
    """
    outcomes = {p.name: load_outcome(folder, p.name) for p in pieces}
    merged = {name: None if outcome is None else asdict(outcome) for name, outcome in outcomes.items()}
    write_json(folder / "gpu_check.json", {"environment": dict(environment), "pieces": merged})
    write_atomically(folder / "gpu_check.md", summary_text(outcomes, environment))


def summary_text(outcomes: Mapping[str, Outcome | None], environment: Mapping[str, Any]) -> str:
    """Return the environment in a line, the table of the pieces, and a table for each piece with rows."""
    about = ", ".join(f"{key} {_number(value)}" for key, value in environment.items())
    rows = [[name, *_cells(outcome)] for name, outcome in outcomes.items()]
    parts = [about, markdown_table(["piece", "result", "s", "figures"], rows, text_columns=4)]
    for name, outcome in outcomes.items():
        if outcome is not None and (table := outcome.figures.get(ROWS)):
            columns = list(dict.fromkeys(column for row in table.values() for column in row))
            body = [[row, *(_number(values.get(c, "-")) for c in columns)] for row, values in table.items()]
            parts += [f"`{name}`:", markdown_table([name, *columns], body)]
    return "\n\n".join(parts) + "\n"


def _cells(outcome: Outcome | None) -> list[str]:
    """Return result, seconds and figures of a piece."""
    if outcome is None:
        return ["not run", "-", ""]
    reason = outcome.reason.replace("|", "/")
    figures = "; ".join(f"{k} {_number(v)}" for k, v in outcome.figures.items() if k != ROWS)
    return [f"{outcome.status}: {reason}" if reason else outcome.status, f"{outcome.seconds:.0f}", figures]


def _number(value: Any) -> str:
    """Return a value for a cell; floats have three digits."""
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    if isinstance(value, list):
        return " ".join(map(_number, value)) or "none"
    return str(value).replace("|", "/")
