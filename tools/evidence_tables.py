"""Recompute the tables of docs/evidence.md from the raw results in docs/evidence; nothing is trained.

The command rewrites compare.md, summary.csv and the plot of every folder of docs/evidence, and every table of the page
that follows a comment. The comment names a folder, folders whose seeds are pooled, or object groups of a folder:

    <!-- hituav -->    <!-- hituav + hituav4 -->    <!-- hituav by size of ds2d2, fu2 -->

    python tools/evidence_tables.py
"""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from ds2d2_yolo.compare import compare
from ds2d2_yolo.compare.results import RunResult, read_results
from ds2d2_yolo.compare.summary import summarise
from ds2d2_yolo.compare.tables import grouped, overall
from ds2d2_yolo.errors import BadUseError

DOCS = Path(__file__).resolve().parents[1] / "docs"
BASELINE, LEVEL = "plain", 0.95
PATCHED = "teacher_bf16"  # in earlier runs a patch of the code, which their settings do not name
SELECTION = re.compile(r"(?P<folders>\w+(?: \+ \w+)*)(?: by (?P<by>size|crowding) of (?P<arms>[\w, ]+))?")
TABLE = re.compile(
    r"<!-- (?P<selection>" + re.sub(r"\?P<\w+>", "", SELECTION.pattern) + r") -->\n\n(?P<table>(?:\|.*\n)+)"
)


def pool_seeds(files: list[Path]) -> list[RunResult]:
    """Return the rows of several comparisons with one teacher as those of one comparison, for the arms that all have.

    The comparisons have different seeds, but the same images and, except for `PATCHED`, the same settings.

    Args:
        files (list[Path]): Raw results.

    Returns:
        (list[RunResult]): Rows in the order of the files, those of the teacher once.

    Raises:
        BadUseError: If two files hold the same run, or differ in images or settings.
    """
    parts = [read_results(file) for file in files]
    shared = set.intersection(*({row.arm for row in rows} for rows in parts))
    if len(measured := {(row.images, row.objects) for rows in parts for row in rows if row.by == "all"}) > 1:
        sizes = " and ".join(f"{images} images with {objects} objects" for images, objects in sorted(measured))
        raise BadUseError(f"{', '.join(file.parent.name for file in files)} are of {sizes}")
    seen: dict[tuple[str, int], Path] = {}
    settings: dict[str, dict[str, Any]] = {}
    pooled = []
    for file, rows in zip(files, parts, strict=True):
        for row in rows:
            first = seen.setdefault((row.arm, row.seed), file)
            if row.arm not in shared or (row.arm == "teacher" and first != file):
                continue
            if first != file:
                raise BadUseError(f"{row.arm} with seed {row.seed} is in {first.parent.name} and in {file.parent.name}")
            known = {k: v for k, v in json.loads(row.settings).items() if k != PATCHED}
            if settings.setdefault(row.arm, known) != known:
                raise BadUseError(f"{row.arm} had the settings {settings[row.arm]}, and {known} in {file.parent.name}")
            pooled.append(replace(row, settings_hash=""))  # the settings are compared above; the hash includes PATCHED
    return pooled


def make_table(docs: Path, selection: str) -> str:
    """Return the table of a comment of the page.

    Args:
        docs (Path): Folder of the page.
        selection (str): Text of the comment, see the top of this file.

    Returns:
        (str): Markdown.

    Raises:
        BadUseError: If a folder or an arm does not exist.
    """
    match = SELECTION.fullmatch(selection)
    assert match is not None  # TABLE matches no others
    files = [docs / "evidence" / name / "results.csv" for name in match["folders"].split(" + ")]
    rows = pool_seeds(files) if len(files) > 1 else read_results(files[0])
    if not match["by"]:
        return overall(summarise(rows, BASELINE, LEVEL), "last")
    arms = {*match["arms"].split(", "), BASELINE, "teacher"}
    if absent := arms - {row.arm for row in rows}:
        raise BadUseError(f"'<!-- {selection} -->': {match['folders']} has no {', '.join(sorted(absent))}")
    return grouped(summarise([row for row in rows if row.arm in arms], BASELINE, LEVEL), "last", match["by"], "map50")


def update(docs: Path) -> list[str]:
    """Recompute all tables and plots.

    Args:
        docs (Path): Folder of the page.

    Returns:
        (list[str]): The selection of each table of the page, with ': changed' for a changed table.

    Raises:
        BadUseError: If a folder has no table in the page, or raw results cannot be read.
    """
    page = docs / "evidence.md"
    text = page.read_text(encoding="utf-8")
    files = sorted((docs / "evidence").glob("*/results.csv"))
    named = [match["selection"] for match in TABLE.finditer(text)]
    if absent := [file.parent.name for file in files if file.parent.name not in named]:
        raise BadUseError(f"{page} has no table behind a line '<!-- {absent[0]} -->'")
    log = []

    def recompute(match: re.Match[str]) -> str:
        table = make_table(docs, match["selection"]).rstrip("\n") + "\n"
        log.append(match["selection"] + ("" if table == match["table"] else ": changed"))
        return f"<!-- {match['selection']} -->\n\n{table}"

    text = TABLE.sub(recompute, text)  # a wrong comment raises before anything is written
    for file in files:
        compare(results=str(file), baseline=BASELINE, level=LEVEL)
    page.write_text(text, encoding="utf-8")
    return log


def main(arguments: list[str] | None = None) -> None:
    """Run the command.

    Args:
        arguments (list[str] | None): Arguments of the command line, None for those of this process.
    """
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--docs", type=Path, default=DOCS, help="folder of evidence.md and evidence/")
    try:
        print("\n".join(update(parser.parse_args(arguments).docs)))
    except BadUseError as e:
        parser.exit(1, f"error: {e}\n")


if __name__ == "__main__":
    main()
