"""Tables as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ds2d2_yolo.utils.atomic_files import write_atomically


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], text_columns: int = 1) -> str:
    """Return a Markdown table whose columns are aligned, so that it is readable on a terminal too.

    Args:
        header (Sequence[str]): Column names.
        rows (Iterable[Sequence[str]]): Cells of each row, as many as there are columns.
        text_columns (int): Number of leading columns that are aligned to the left; the others are aligned to the right.

    Returns:
        (str): Header, rule and rows, without a line break at the end.

    Examples:
        >>> print(markdown_table(["arm", "mAP50"], [["plain", "0.5"]]))
        | arm   | mAP50 |
        | ----- | ----: |
        | plain |   0.5 |
    """
    body = [list(row) for row in rows]
    widths = [max(len(row[i]) for row in (header, *body)) for i in range(len(header))]
    rule = ["-" * w if i < text_columns else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    return "\n".join(f"| {' | '.join(_align(row, widths, text_columns))} |" for row in (header, rule, *body))


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    r"""Return a table as CSV with '\n' as line end; None becomes an empty cell.

    Args:
        header (Sequence[str]): Column names.
        rows (Iterable[Sequence[Any]]): Values of each row.

    Returns:
        (str): The text, with a line end after the last row.

    Examples:
        >>> csv_text(["arm", "mAP50"], [["plain", None]])
        'arm,mAP50\nplain,\n'
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table as CSV atomically.

    Args:
        path (Path): The file; its folder is made.
        header (Sequence[str]): Column names.
        rows (Iterable[Sequence[Any]]): Values of each row; None becomes an empty cell.
    """
    write_atomically(path, csv_text(header, rows))


def _align(cells: Sequence[str], widths: Sequence[int], text_columns: int) -> list[str]:
    """Pad cells to the width of their columns, text on the right side and numbers on the left side."""
    padded = enumerate(zip(cells, widths, strict=True))
    return [cell.ljust(width) if i < text_columns else cell.rjust(width) for i, (cell, width) in padded]
