"""Recompute the tables of docs/evidence.md from the raw results beside it, in seconds; nothing is trained.

Every folder of docs/evidence gets its compare.md, summary.csv and picture anew, and the page every table that stands
behind a comment which says what it is of: a folder, folders whose seeds are taken together, or groups of objects:

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
from ds2d2_yolo.compare.results import Result, read_results
from ds2d2_yolo.compare.summary import summarise
from ds2d2_yolo.compare.tables import grouped, overall
from ds2d2_yolo.errors import BadUseError

DOCS = Path(__file__).resolve().parents[1] / "docs"
BASELINE, LEVEL = "plain", 0.95
PATCHED = "teacher_bf16"  # an option that was a patch in the earlier runs: their settings do not name it
OF = re.compile(r"(?P<folders>\w+(?: \+ \w+)*)(?: by (?P<by>size|crowding) of (?P<arms>[\w, ]+))?")
TABLE = re.compile(r"<!-- (?P<of>" + re.sub(r"\?P<\w+>", "", OF.pattern) + r") -->\n\n(?P<table>(?:\|.*\n)+)")


def together(files: list[Path]) -> list[Result]:
    """Return the rows of several comparisons with one teacher as if they were of one, of the arms that all have.

    Their seeds differ; images and settings must not, `PATCHED` aside.

    Args:
        files (list[Path]): Raw results.

    Returns:
        (list[Result]): In the order of the files, the teacher's once.

    Raises:
        BadUseError: If a run is in two of them, or they are of other images or of other settings.
    """
    parts = [read_results(file) for file in files]
    shared = set.intersection(*({row.arm for row in rows} for rows in parts))
    if len(measured := {(row.images, row.objects) for rows in parts for row in rows if row.by == "all"}) > 1:
        said = " and ".join(f"{images} images with {objects} objects" for images, objects in sorted(measured))
        raise BadUseError(f"{', '.join(file.parent.name for file in files)} are of {said}")
    seen: dict[tuple[str, int], Path] = {}
    settings: dict[str, dict[str, Any]] = {}
    found = []
    for file, rows in zip(files, parts, strict=True):
        for row in rows:
            first = seen.setdefault((row.arm, row.seed), file)
            if row.arm not in shared or (row.arm == "teacher" and first != file):
                continue
            if first != file:
                raise BadUseError(f"{row.arm} with seed {row.seed} is in {first.parent.name} and in {file.parent.name}")
            own = {k: v for k, v in json.loads(row.settings).items() if k != PATCHED}
            if settings.setdefault(row.arm, own) != own:
                raise BadUseError(f"{row.arm} had the settings {settings[row.arm]}, and {own} in {file.parent.name}")
            found.append(replace(row, settings_hash=""))  # told apart here, and it holds the patched setting
    return found


def table_of(docs: Path, of: str) -> str:
    """Return the table that a comment of the page asks for.

    Args:
        docs (Path): Folder of the page.
        of (str): What the comment says, see above.

    Returns:
        (str): Markdown.

    Raises:
        BadUseError: If a folder or an arm is not there.
    """
    asked = OF.fullmatch(of)
    assert asked is not None  # TABLE finds no others
    files = [docs / "evidence" / name / "results.csv" for name in asked["folders"].split(" + ")]
    rows = together(files) if len(files) > 1 else read_results(files[0])
    if not asked["by"]:
        return overall(summarise(rows, BASELINE, LEVEL), "last")
    arms = {*asked["arms"].split(", "), BASELINE, "teacher"}
    if absent := arms - {row.arm for row in rows}:
        raise BadUseError(f"'<!-- {of} -->': {asked['folders']} has no {', '.join(sorted(absent))}")
    return grouped(summarise([row for row in rows if row.arm in arms], BASELINE, LEVEL), "last", asked["by"], "map50")


def renew(docs: Path) -> list[str]:
    """Write all tables and pictures anew.

    Args:
        docs (Path): Folder of the page.

    Returns:
        (list[str]): What the page's tables are of, those that changed with a word that says so.

    Raises:
        BadUseError: If a folder has no table in the page, or raw results cannot be read.
    """
    page = docs / "evidence.md"
    text = page.read_text(encoding="utf-8")
    files = sorted((docs / "evidence").glob("*/results.csv"))
    named = [found["of"] for found in TABLE.finditer(text)]
    if absent := [file.parent.name for file in files if file.parent.name not in named]:
        raise BadUseError(f"{page} has no table behind a line '<!-- {absent[0]} -->'")
    said = []

    def anew(found: re.Match[str]) -> str:
        table = table_of(docs, found["of"]).rstrip("\n") + "\n"
        said.append(found["of"] + ("" if table == found["table"] else ": changed"))
        return f"<!-- {found['of']} -->\n\n{table}"

    text = TABLE.sub(anew, text)  # a wrong comment ends it before anything is written
    for file in files:
        compare(results=str(file), baseline=BASELINE, level=LEVEL)
    page.write_text(text, encoding="utf-8")
    return said


def main(arguments: list[str] | None = None) -> None:
    """Run the command.

    Args:
        arguments (list[str] | None): Of the command line, None is this process's.
    """
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--docs", type=Path, default=DOCS, help="folder of evidence.md and evidence/")
    try:
        print("\n".join(renew(parser.parse_args(arguments).docs)))
    except BadUseError as e:
        parser.exit(1, f"error: {e}\n")


if __name__ == "__main__":
    main()
