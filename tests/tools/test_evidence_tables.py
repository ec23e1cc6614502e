"""The evidence page's tables: those of the raw results, each behind the comment that says what it is of."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from ds2d2_yolo.compare.results import read_results, write_results
from ds2d2_yolo.compare.summaries.statistics import PairedDifference, paired_difference
from ds2d2_yolo.errors import BadUseError

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = "evidence.md", "evidence-runs.md"
PAGE = "".join((DOCS / page).read_text(encoding="utf-8") for page in PAGES)


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(DOCS.parent / "tools"))
    import evidence_tables

    return evidence_tables


def test_tables_of_the_pages_are_those_of_the_raw_results(tool: Any) -> None:
    assert tool.PAGES == PAGES
    tables = {table["selection"]: table["table"] for table in tool.TABLE.finditer(PAGE)}
    assert {file.parent.name for file in (DOCS / "evidence").glob("*/results.csv")} <= tables.keys()
    assert PAGE.count("<!-- ") == len(tables), "a comment has no table, or one has two"
    for selection, table in tables.items():
        assert tool.make_table(DOCS, selection).rstrip("\n") == table.rstrip("\n"), selection


def six_seeds(tool: Any, kind: str) -> tuple[Callable[[str, str, str], str], Callable[[str], str]]:
    """Give the difference of two arms in a metric, and the gap in mAP50-95 that an arm closed, as they are written."""
    rows = tool.pool_seeds([DOCS / "evidence" / name / "results.csv" for name in (kind, f"{kind}4")])
    overall_rows = [r for r in rows if r.by == "all" and r.weights in ("last", "file")]

    def scores_of(arm: str, metric: str) -> dict[int, float]:
        return {r.seed: getattr(r, metric) for r in overall_rows if r.arm == arm}

    def difference(arm: str, base: str, metric: str) -> str:
        paired = paired_difference(scores_of(arm, metric), scores_of(base, metric), 0.95)
        assert paired is not None
        assert paired.n == (6 if arm == "ds2d2" else 4)
        return f"{paired.mean:+.3f} [{paired.low:+.3f}, {paired.high:+.3f}]"

    def gap(arm: str) -> str:
        arm_scores, plain_scores = scores_of(arm, "map50_95"), scores_of("plain", "map50_95")
        begin, reached = (mean(scores[seed] for seed in arm_scores) for scores in (plain_scores, arm_scores))
        return f"{(reached - begin) / (scores_of('teacher', 'map50_95')[-1] - begin):.0%}".replace("%", " %")

    return difference, gap


def cells(row: str) -> list[str]:
    """The cells of the only row of the pages that begins so, without bold."""
    lines = [re.sub(r"\*\*| +(?=\|)|(?<=\|) +", "", line) for line in PAGE.splitlines()]
    (line,) = (line for line in lines if line.startswith(row))
    return line.strip("|").split("|")


@pytest.mark.parametrize(
    ("kind", "images", "teacher", "by_hand"),
    [
        ("hituav", "HIT-UAV, validation", "T1,0.446", "|HIT-UAV, validation|+"),
        ("heldout", "HIT-UAV, held out", "T1,0.497", "|held out|+"),
    ],
)
def test_headline_is_that_of_the_raw_results(tool: Any, kind: str, images: str, teacher: str, by_hand: str) -> None:
    difference, gap = six_seeds(tool, kind)
    metrics = "map50", "map50_95"
    teacher = teacher.replace(",", ", ")
    over_plain, over_defaults = ([difference("all8", base, m) for m in metrics] for base in ("plain", "ds2d2"))
    assert cells(f"|{images}|{teacher}|defaults|")[-2:] == [difference("ds2d2", "plain", m) for m in metrics]
    assert cells(f"|{images}|{teacher}|`recipe=stride8`|")[-2:] == over_defaults
    assert cells(by_hand)[1:] == [*over_plain, gap("all8"), *over_defaults]


def test_interval_without_zero_is_bold(tool: Any) -> None:
    bold = {
        first: tool.highlighted(PairedDifference(2, first, 0.1, first - 0.1, first + 0.1)) for first in (0.2, 0.0, -0.2)
    }
    assert [text.startswith("**") for text in bold.values()] == [True, False, True]
    assert tool.highlighted(PairedDifference(1, 0.2, None, None, None)) == "+0.200"
    with pytest.raises(BadUseError, match="there are gains, recipes"):
        tool.make_table(DOCS, "overview none")


@pytest.mark.parametrize("file", [DOCS.parent / "README.md", DOCS / "index.md"], ids=lambda file: file.stem)
def test_intervals_named_elsewhere_are_on_the_page(file: Path) -> None:
    page, text = (re.sub(r"\**\s+|\*\*", " ", text) for text in (PAGE, file.read_text(encoding="utf-8")))
    named = re.findall(r"[+-]\d\.\d{3} \[[^]]*\]", text)
    assert named
    assert [interval for interval in named if interval not in page] == []


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ("hituav + heldout4", "hituav, heldout4 are of 280 images with 2445 objects and 286 images with 1882 objects"),
        ("scenes + scenes2", "plain with seed 0 is in scenes and in scenes2"),
    ],
)
def test_what_is_not_one_sample_is_not_taken_together(tool: Any, selection: str, message: str) -> None:
    with pytest.raises(BadUseError, match=message):
        tool.make_table(DOCS, selection)


def copy_of(folder: Path, *names: str) -> Path:
    """A page with a table of each of these comparisons, copied from the evidence."""
    page = ""
    for name in names:
        shutil.copytree(DOCS / "evidence" / name, folder / "evidence" / name)
        page += f"Of {name}:\n\n<!-- {name} -->\n\n| arm |\n| --- |\n| gone |\n\nBehind it.\n"
    (folder / "evidence.md").write_text(page, encoding="utf-8")
    return folder


def test_command_writes_tables_anew(tool: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    docs = copy_of(tmp_path, "hituav2")
    (docs / "evidence" / "hituav2" / "compare.md").unlink()
    tool.main(["--docs", str(docs)])
    assert capsys.readouterr().out == "hituav2: changed\n"
    page = (docs / "evidence.md").read_text(encoding="utf-8")
    expected_table = next(table["table"] for table in tool.TABLE.finditer(PAGE) if table["selection"] == "hituav2")
    assert page == f"Of hituav2:\n\n<!-- hituav2 -->\n\n{expected_table}\nBehind it.\n"
    original, rewritten = (base / "evidence" / "hituav2" / "compare.md" for base in (DOCS, docs))
    assert rewritten.read_text(encoding="utf-8") == original.read_text(encoding="utf-8")
    tool.main(["--docs", str(docs)])
    assert capsys.readouterr().out == "hituav2\n"
    assert (docs / "evidence.md").read_text(encoding="utf-8") == page


def test_a_comparison_without_a_table_is_named(tool: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    docs = copy_of(tmp_path, "scenes")
    (docs / "evidence.md").write_text("Nothing.\n", encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        tool.main(["--docs", str(docs)])
    assert ended.value.code == 1
    assert "has a table behind a line '<!-- scenes -->'" in capsys.readouterr().err
    assert (docs / "evidence.md").read_text(encoding="utf-8") == "Nothing.\n"


def test_seeds_are_taken_together_once(tool: Any, tmp_path: Path) -> None:
    rows = [r for r in read_results(DOCS / "evidence" / "hituav2" / "results.csv") if r.arm != "scored"]
    parts = [tmp_path / str(part) / "results.csv" for part in (0, 1)]
    for part, file in enumerate(parts):
        file.parent.mkdir()
        part_rows = [r for r in rows if part or r.arm != "ds2d2"]
        write_results(file, [r for r in part_rows if r.seed < 0 or (r.seed == 2) == bool(part)])
    pooled = tool.pool_seeds(parts)
    assert {(r.arm, r.seed) for r in pooled} == {("teacher", -1), ("plain", 0), ("plain", 1), ("plain", 2)}
    assert len({(r.arm, r.seed, r.weights, r.by, r.group) for r in pooled}) == len(pooled)
    later = read_results(parts[1])
    write_results(parts[1], [replace(r, settings='{"disw": 2.0}') if r.arm == "plain" else r for r in later])
    with pytest.raises(BadUseError, match=r"plain had the settings \{\}, and \{'disw': 2.0\} in 1"):
        tool.pool_seeds(parts)
    write_results(parts[1], [replace(r, settings='{"teacher_bf16": true}') if r.arm == "plain" else r for r in later])
    assert len(tool.pool_seeds(parts)) == len(pooled)
    write_results(parts[1], [replace(r, student_hash="a checkpoint of its own") for r in later if r.arm != "teacher"])
    assert len(tool.summarise(tool.pool_seeds(parts), "plain", 0.95).seeds("plain")) == 3
    write_results(parts[0], rows)
    with pytest.raises(BadUseError, match="plain with seed 2 is in 0 and in 1"):
        tool.pool_seeds(parts)
    with pytest.raises(BadUseError, match="hituav2 has no alone"):
        tool.make_table(DOCS, "hituav2 by size of ds2d2, alone")


def test_a_teacher_that_was_not_compared_has_no_number(
    tool: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs = copy_of(tmp_path, "hituav2")
    row = tool.OverviewRow("images", "T2", "defaults", ("hituav2",), "ds2d2")
    monkeypatch.setitem(tool.OVERVIEWS, "gains", ("plain", (row,)))
    file = docs / "evidence" / "hituav2" / "results.csv"
    teachers = []
    for rows in (read_results(file), [r for r in read_results(file) if r.arm != "teacher"]):
        write_results(file, rows)
        last_row = tool.make_table(docs, "overview gains").strip().splitlines()[-1]
        teachers.append(last_row.split("|")[2].strip())
    assert teachers == ["T2, 0.422", "T2"]


def test_an_interval_that_a_folder_repeats_counts_once(tool: Any, tmp_path: Path) -> None:
    docs = copy_of(tmp_path, "hituav2")
    arms = {r.arm for r in read_results(docs / "evidence" / "hituav2" / "results.csv")} - {"plain", "teacher"}
    table = tool.make_table(docs, "overview intervals")
    assert re.search(rf"\| 3 +\| +{len(arms)} \|", table)
    shutil.copytree(docs / "evidence" / "hituav2", docs / "evidence" / "repeated")
    assert tool.make_table(docs, "overview intervals") == table
