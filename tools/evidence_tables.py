"""Recompute the tables of docs/evidence.md from the raw results beside it, in seconds; nothing is trained.

Every folder of docs/evidence gets its compare.md, summary.csv and picture anew, and the page every table that stands
behind a comment which says what it is of: a folder, folders whose seeds are taken together, or groups of objects:

    <!-- hituav -->    <!-- hituav + hituav4 -->    <!-- hituav by size of ds2d2, fu2 -->

    python tools/evidence_tables.py
"""

from __future__ import annotations

import argparse
import re
from dataclasses import replace
from pathlib import Path

from ds2d2_yolo.compare import compare
from ds2d2_yolo.compare.results import Result, read_results
from ds2d2_yolo.compare.summary import summarise
from ds2d2_yolo.compare.tables import grouped, overall
from ds2d2_yolo.errors import BadUseError

DOCS = Path(__file__).resolve().parents[1] / "docs"
BASELINE, LEVEL = "plain", 0.95
OF = re.compile(r"(?P<folders>\w+(?: \+ \w+)*)(?: by (?P<by>size|crowding) of (?P<arms>[\w, ]+))?")
TABLE = re.compile(r"<!-- (?P<of>" + re.sub(r"\?P<\w+>", "", OF.pattern) + r") -->\n\n(?P<table>(?:\|.*\n)+)")


def together(files: list[Path]) -> list[Result]:
    """Return the rows of several comparisons with one teacher as if they were of one, of the arms that all have.

    Their seeds differ, and so may what their settings are written as: a patch of the one is an option of the other.

    Args:
        files (list[Path]): Raw results.

    Returns:
        (list[Result]): In the order of the files, the teacher's once.

    Raises:
        BadUseError: If a run is in two of them.
    """
    parts = [read_results(file) for file in files]
    shared = set.intersection(*({row.arm for row in rows} for rows in parts))
    seen: dict[tuple[str, int], Path] = {}
    found = []
    for file, rows in zip(files, parts, strict=True):
        for row in rows:
            first = seen.setdefault((row.arm, row.seed), file)
            if row.arm not in shared or (row.arm == "teacher" and first != file):
                continue
            if first != file:
                raise BadUseError(f"{row.arm} with seed {row.seed} is in {first.parent.name} and in {file.parent.name}")
            found.append(replace(row, settings_hash=""))
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
    named = [found["of"] for found in TABLE.finditer(text)]
    for file in sorted((docs / "evidence").glob("*/results.csv")):
        if file.parent.name not in named:
            raise BadUseError(f"{page} has no table behind a line '<!-- {file.parent.name} -->'")
        compare(results=str(file), baseline=BASELINE, level=LEVEL)
    said = []

    def anew(found: re.Match[str]) -> str:
        table = table_of(docs, found["of"]).rstrip("\n") + "\n"
        said.append(found["of"] + ("" if table == found["table"] else ": changed"))
        return f"<!-- {found['of']} -->\n\n{table}"

    page.write_text(TABLE.sub(anew, text), encoding="utf-8")
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
