"""Recompute the tables of the evidence pages from the raw results in docs/evidence; nothing is trained.

The command rewrites compare.md, summary.csv and the plot of every folder of docs/evidence, and the tables of
docs/evidence.md and docs/evidence-runs.md that follow a comment. It names one of `OVERVIEWS`, a folder, folders
whose seeds are pooled, or object groups of a folder:

    <!-- overview gains -->    <!-- hituav -->    <!-- hituav + hituav4 -->    <!-- hituav by size of ds2d2, fu2 -->

`<!-- overview intervals -->` counts the intervals of all folders.

    python tools/evidence_tables.py
"""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

from ds2d2_yolo.compare import compare
from ds2d2_yolo.compare.results import RunResult, read_results
from ds2d2_yolo.compare.summaries.statistics import PairedDifference, paired_difference
from ds2d2_yolo.compare.summaries.summary import TEACHER_SEED, summarise
from ds2d2_yolo.compare.summaries.tables import grouped, interval, overall
from ds2d2_yolo.errors import BadUseError
from ds2d2_yolo.utils.tables import markdown_table

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = "evidence.md", "evidence-runs.md"
INTERVALS = "intervals"
BASELINE, DEFAULTS, LEVEL = "plain", "ds2d2", 0.95
PATCHED = "teacher_bf16"  # in earlier runs a patch of the code, which their settings do not name
SELECTION = re.compile(
    r"overview (?P<overview>\w+)|(?P<folders>\w+(?: \+ \w+)*)(?: by (?P<by>size|crowding) of (?P<arms>[\w, ]+))?"
)
TABLE = re.compile(
    r"<!-- (?P<selection>" + re.sub(r"\?P<\w+>", "", SELECTION.pattern) + r") -->\n\n(?P<table>(?:\|.*\n)+)"
)


@dataclass(frozen=True)
class OverviewRow:
    """A row of a table over several comparisons: an arm against another arm of the same seeds.

    Attributes:
        images (str): What the arm was measured on.
        teacher (str): The teacher's name on the pages. Its mAP50 follows where the comparison has it.
        settings (str): Settings of the arm, as a user types them.
        folders (tuple[str, ...]): Folders of docs/evidence, their seeds pooled.
        arm (str): Name of the arm.
    """

    images: str
    teacher: str
    settings: str
    folders: tuple[str, ...]
    arm: str


T1_VALIDATION, T1_HELD_OUT = ("hituav", "hituav4"), ("heldout", "heldout4")
T1_CELLS, T1_CELLS_HELD_OUT = ("hituav5", "hituav6"), ("heldout5", "heldout6")
T1_MEASURED, T1_MEASURED_HELD_OUT = ("hituav7", "hituav8"), ("heldout7", "heldout8")
BY_CELLS = "`recipe=balanced`, levels by cells"
PHOTOGRAPHS, HELD_OUT, SCENES = "HIT-UAV, validation", "HIT-UAV, held out", "drawn scenes"
OVERVIEWS: dict[str, tuple[str, tuple[OverviewRow, ...]]] = {  # name: arm to compare with, rows
    "gains": (BASELINE, (
        OverviewRow(PHOTOGRAPHS, "T1", "defaults", T1_VALIDATION, DEFAULTS),
        OverviewRow(PHOTOGRAPHS, "T1", "`recipe=balanced`", T1_MEASURED, "togmeas"),
        OverviewRow(PHOTOGRAPHS, "T2", "defaults", ("hituav2",), DEFAULTS),
        OverviewRow(PHOTOGRAPHS, "T3", "defaults", ("hituav3",), DEFAULTS),
        OverviewRow(HELD_OUT, "T1", "defaults", T1_HELD_OUT, DEFAULTS),
        OverviewRow(HELD_OUT, "T1", "`recipe=balanced`", T1_MEASURED_HELD_OUT, "togmeas"),
        OverviewRow(HELD_OUT, "T2", "defaults", ("heldout2",), DEFAULTS),
        OverviewRow(HELD_OUT, "T3", "defaults", ("heldout3",), DEFAULTS),
        OverviewRow(SCENES, "S1", "defaults", ("scenes",), DEFAULTS),
        OverviewRow(SCENES, "S2", "defaults", ("scenes2",), DEFAULTS),
        OverviewRow(SCENES, "S3", "defaults", ("scenes3",), DEFAULTS),
        OverviewRow(SCENES, "S3", "`recipe=balanced`", ("scenes3",), "togmeas"),
        OverviewRow(SCENES, "S4", "defaults", ("scenes4",), DEFAULTS),
        OverviewRow(SCENES, "S4", "`recipe=balanced`", ("scenes4",), "balanced"),
        OverviewRow("HIT-UAV, 160 px, pretrained", "320 px", "`recipe=balanced`", ("halfsize",), "balanced"),
        OverviewRow("scenes of the demo", "demo", "`recipe=balanced`", ("demo",), "measured"),
        OverviewRow("the same, 48 epochs", "demo", "`recipe=balanced`", ("demo48",), "balanced"),
    )),
    "recipes": (DEFAULTS, (
        OverviewRow(SCENES, "S3", "`recipe=balanced`", ("scenes3",), "togmeas"),
        OverviewRow(SCENES, "S4", "`recipe=balanced`", ("scenes4",), "balanced"),
        OverviewRow(PHOTOGRAPHS, "T1", "`recipe=balanced`", T1_MEASURED, "togmeas"),
        OverviewRow(HELD_OUT, "T1", "`recipe=balanced`", T1_MEASURED_HELD_OUT, "togmeas"),
        OverviewRow(SCENES, "S3", BY_CELLS, ("scenes3",), "together"),
        OverviewRow(PHOTOGRAPHS, "T1", BY_CELLS, T1_CELLS, "together"),
        OverviewRow(HELD_OUT, "T1", BY_CELLS, T1_CELLS_HELD_OUT, "together"),
        OverviewRow(SCENES, "S3", "explicit stream alone, measured levels", ("scenes3",), "exmeas"),
        OverviewRow(SCENES, "S4", "explicit stream alone, measured levels", ("scenes4",), "exmeas"),
        OverviewRow(SCENES, "S4", "`cwd`, a rival", ("scenes4",), "cwd"),
        OverviewRow(SCENES, "S3", "`recipe=stride8`", ("scenes3",), "all8"),
        OverviewRow(PHOTOGRAPHS, "T1", "`recipe=stride8`", T1_VALIDATION, "all8"),
        OverviewRow(HELD_OUT, "T1", "`recipe=stride8`", T1_HELD_OUT, "all8"),
        OverviewRow(SCENES, "S2", "`recipe=score`", ("scenes2",), "scored"),
        OverviewRow(PHOTOGRAPHS, "T2", "`recipe=score`", ("hituav2",), "scored"),
        OverviewRow(HELD_OUT, "T2", "`recipe=score`", ("heldout2",), "scored"),
    )),
    "upstream": (BASELINE, (
        OverviewRow(PHOTOGRAPHS, "T3", "`distill_model`", ("hituav3",), "distill_model"),
        OverviewRow(HELD_OUT, "T3", "`distill_model`", ("heldout3",), "distill_model"),
        OverviewRow(SCENES, "S2", "`distill_model`", ("scenes2",), "distill_model"),
    )),
}  # fmt: skip


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
            # The settings are compared above; the hash includes PATCHED. Each seed may start from another checkpoint.
            pooled.append(replace(row, settings_hash="", student_hash=""))
    return pooled


def make_table(docs: Path, selection: str) -> str:
    """Return the table of a comment of the page.

    Args:
        docs (Path): Folder of the pages.
        selection (str): Text of the comment, see the top of this file.

    Returns:
        (str): Markdown.

    Raises:
        BadUseError: If a folder, an arm or an overview does not exist.
    """
    match = SELECTION.fullmatch(selection)
    assert match is not None  # TABLE matches no others
    if match["overview"]:
        return overview(docs, match["overview"])
    files = [docs / "evidence" / name / "results.csv" for name in match["folders"].split(" + ")]
    rows = pool_seeds(files) if len(files) > 1 else read_results(files[0])
    if not match["by"]:
        return overall(summarise(rows, BASELINE, LEVEL), "last")
    arms = {*match["arms"].split(", "), BASELINE, "teacher"}
    if absent := arms - {row.arm for row in rows}:
        raise BadUseError(f"'<!-- {selection} -->': {match['folders']} has no {', '.join(sorted(absent))}")
    return grouped(summarise([row for row in rows if row.arm in arms], BASELINE, LEVEL), "last", match["by"], "map50")


def overview(docs: Path, name: str) -> str:
    """Return a table over several comparisons.

    Args:
        docs (Path): Folder of the pages.
        name (str): Name in `OVERVIEWS`.

    Returns:
        (str): Markdown.

    Raises:
        BadUseError: If there is no such overview.
    """
    if name == INTERVALS:
        return count_intervals(docs)
    if name not in OVERVIEWS:
        raise BadUseError(f"'<!-- overview {name} -->': there are {', '.join((*OVERVIEWS, INTERVALS))}")
    base, rows = OVERVIEWS[name]
    base_name = "the defaults" if base == DEFAULTS else base
    header = ["images", "teacher, its mAP50", "settings", "seeds", f"mAP50, {base_name}", "mAP50",
              "mAP50 difference", "mAP50-95 difference"]  # fmt: skip
    table = []
    for row in rows:
        files = [docs / "evidence" / folder / "results.csv" for folder in row.folders]
        results = pool_seeds(files) if len(files) > 1 else read_results(files[0])
        map50, map50_95 = ((by_seed(results, row.arm, m), by_seed(results, base, m)) for m in ("map50", "map50_95"))
        seeds = map50[0].keys() & map50[1].keys()
        teacher_map50 = by_seed(results, "teacher", "map50").get(TEACHER_SEED)
        teacher = row.teacher if teacher_map50 is None else f"{row.teacher}, {teacher_map50:.3f}"
        means = (f"{mean(values[seed] for seed in seeds):.3f}" for values in (map50[1], map50[0]))
        differences = (highlighted(paired_difference(*pair, LEVEL)) for pair in (map50, map50_95))
        table.append([row.images, teacher, row.settings, str(len(seeds)), *means, *differences])
    return markdown_table(header, table)


def count_intervals(docs: Path) -> str:
    """Return a table with the number of intervals against the plain student, by their seeds.

    Args:
        docs (Path): Folder of the pages.

    Returns:
        (str): Markdown. A folder counts by itself, whether a table pools its seeds or not. An arm that a folder
            repeats for comparison counts once.
    """
    counts: dict[int, list[int]] = {}
    runs: set[tuple[str, int, float]] = set()
    for file in sorted((docs / "evidence").glob("*/results.csv")):
        rows = read_results(file)
        plain = by_seed(rows, BASELINE, "map50")
        for arm in {row.arm for row in rows} - {BASELINE, "teacher"}:
            values = by_seed(rows, arm, "map50")
            repeated = {(arm, *run) for run in values.items()} <= runs
            runs |= {(arm, *run) for run in values.items()}
            difference = None if repeated else paired_difference(values, plain, LEVEL)
            if difference and difference.low is not None and difference.high is not None:
                number = counts.setdefault(difference.n, [0, 0, 0])
                for i, holds in enumerate((True, difference.low > 0, difference.high < 0)):
                    number[i] += holds
    header = ["seeds", "intervals of mAP50", "above 0", "below 0"]
    return markdown_table(header, [[str(seeds), *map(str, n)] for seeds, n in sorted(counts.items())])


def by_seed(rows: list[RunResult], arm: str, metric: str) -> dict[int, float]:
    """Return a metric of an arm on all objects by its seed, from last.pt, or from the only file of a teacher."""
    chosen = (row for row in rows if row.arm == arm and row.by == "all" and row.weights != "best")
    return {row.seed: getattr(row, metric) for row in chosen}


def highlighted(difference: PairedDifference | None) -> str:
    """Return a difference as text, in bold if its interval does not hold 0."""
    text = interval(difference)
    apart = difference and difference.low is not None and difference.high is not None
    return f"**{text}**" if apart and (difference.low > 0 or difference.high < 0) else text


def update(docs: Path) -> list[str]:
    """Recompute all tables and plots.

    Args:
        docs (Path): Folder of the pages.

    Returns:
        (list[str]): The selection of each table of the pages, with ': changed' for a changed table.

    Raises:
        BadUseError: If a folder has no table in the pages, or raw results cannot be read.
    """
    texts = {page: (docs / page).read_text(encoding="utf-8") for page in PAGES if (docs / page).is_file()}
    files = sorted((docs / "evidence").glob("*/results.csv"))
    named = [match["selection"] for text in texts.values() for match in TABLE.finditer(text)]
    if absent := [file.parent.name for file in files if file.parent.name not in named]:
        raise BadUseError(f"no page in {docs} has a table behind a line '<!-- {absent[0]} -->'")
    log = []

    def recompute(match: re.Match[str]) -> str:
        table = make_table(docs, match["selection"]).rstrip("\n") + "\n"
        log.append(match["selection"] + ("" if table == match["table"] else ": changed"))
        return f"<!-- {match['selection']} -->\n\n{table}"

    new = {page: TABLE.sub(recompute, text) for page, text in texts.items()}  # raises before anything is written
    for file in files:
        compare(results=str(file), baseline=BASELINE, level=LEVEL)
    for page, text in new.items():
        (docs / page).write_text(text, encoding="utf-8")
    return log


def main(arguments: list[str] | None = None) -> None:
    """Run the command.

    Args:
        arguments (list[str] | None): Arguments of the command line, None for those of this process.
    """
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--docs", type=Path, default=DOCS, help="folder of the pages and of evidence/")
    try:
        print("\n".join(update(parser.parse_args(arguments).docs)))
    except BadUseError as e:
        parser.exit(1, f"error: {e}\n")


if __name__ == "__main__":
    main()
