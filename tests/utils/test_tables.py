"""Tables as Markdown and as CSV."""

from __future__ import annotations

import csv
from pathlib import Path

from ds2d2_yolo.utils.tables import csv_text, markdown_table, write_csv


def test_columns_are_aligned_text_to_the_left_and_numbers_to_the_right() -> None:
    table = markdown_table(["by", "group", "mAP50"], [["size", "0-16", "0.5"], ["all", "all", "0.123"]], text_columns=2)
    assert table.splitlines() == [
        "| by   | group | mAP50 |",
        "| ---- | ----- | ----: |",
        "| size | 0-16  |   0.5 |",
        "| all  | all   | 0.123 |",
    ]


def test_a_table_without_rows_has_a_header() -> None:
    assert markdown_table(["a", "bcd"], []).splitlines() == ["| a | bcd |", "| - | --: |"]


def test_rows_may_come_from_a_generator() -> None:
    assert markdown_table(["a"], (["x"] for _ in range(2))).splitlines()[2:] == ["| x |", "| x |"]


def test_csv_round_trip(tmp_path: Path) -> None:
    rows = [["a,b", 0.1, None], ['say "x"', float("nan"), "two\nlines"]]
    write_csv(tmp_path / "folder" / "table.csv", ["name", "value", "note"], rows)
    data = (tmp_path / "folder" / "table.csv").read_bytes()
    assert b"\r" not in data
    with (tmp_path / "folder" / "table.csv").open(newline="", encoding="utf-8") as file:
        read = list(csv.reader(file))
    assert read == [["name", "value", "note"], ["a,b", "0.1", ""], ['say "x"', "nan", "two\nlines"]]


def test_csv_text_ends_with_a_line_end() -> None:
    assert csv_text(["a", "b"], [[1, 2]]) == "a,b\n1,2\n"
