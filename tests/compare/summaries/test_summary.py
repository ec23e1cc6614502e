"""Statistics, tables and picture of raw results, and the raw results themselves."""

from __future__ import annotations

import csv
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import pytest
from matplotlib.figure import Figure

from ds2d2_yolo.compare import compare
from ds2d2_yolo.compare.results import COLUMNS, RunResult, add_results, read_results, write_results
from ds2d2_yolo.compare.summaries.plot import draw, shown_groups
from ds2d2_yolo.compare.summaries.summary import summarise
from ds2d2_yolo.compare.summaries.tables import MIN_OBJECTS, cost, grouped, overall, remarks, report
from ds2d2_yolo.errors import BadUseError

GROUPS = [("all", "all", 32), ("size", "0-16", 9), ("size", "16-32", 23), ("size", "96+", 0), ("class", "red", 15)]
# mAP50 of last.pt over all objects; the differences from plain are 0.05, 0.08, 0.02
VALUES = {"plain": [0.35, 0.36, 0.40], "ds2d2": [0.40, 0.44, 0.42]}


def result(arm: str, seed: int, value: float, **keys: Any) -> RunResult:
    """A row of a comparison."""
    defaults: dict[str, Any] = {
        "data": "d.yaml", "teacher": "t.pt", "student": "s.yaml", "imgsz": 96, "epochs": 2, "weights": "last",
        "by": "all", "group": "all", "map50": value, "map50_95": value / 2, "images": 8, "objects": 32,
        "initial_weights": f"w{seed}", "first_epoch": f"d{seed}", "train_seconds": 60.0, "step_seconds": 0.5,
        "settings_hash": arm, "teacher_hash": "t",
    }  # fmt: skip
    return RunResult(arm, seed, **{**defaults, **keys})


def results() -> list[RunResult]:
    """Two arms of three seeds and a teacher, by groups."""
    rows = []
    for by, group, objects in GROUPS:
        group_columns = {"by": by, "group": group, "objects": objects}
        empty_scores = {} if objects else {"map50": float("nan"), "map50_95": float("nan")}
        rows.append(result("teacher", -1, 0.55, weights="file", **group_columns, **empty_scores))
        for weights, offset in (("last", 0.0), ("best", 0.01)):
            for arm, values in VALUES.items():
                for seed, value in enumerate(values):
                    rows.append(result(arm, seed, value + offset, weights=weights, **group_columns, **empty_scores))
    return rows


def test_results_go_through_the_file_unchanged(tmp_path: Path) -> None:
    rows = [r for r in results() if r.objects]
    write_results(tmp_path / "r.csv", rows)
    assert read_results(tmp_path / "r.csv") == rows
    header = (tmp_path / "r.csv").read_text(encoding="utf-8").splitlines()[0]
    assert header.startswith("arm,seed,data,teacher,student,imgsz,epochs,")
    assert header == ",".join(COLUMNS)


def test_rows_of_a_run_take_the_place_of_its_earlier_ones(tmp_path: Path) -> None:
    file = tmp_path / "r.csv"
    add_results(file, [result("ds2d2", 0, 0.1)], ["plain", "ds2d2"])
    add_results(file, [result("plain", 1, 0.2)], ["plain", "ds2d2"])
    add_results(file, [result("plain", 0, 0.3)], ["plain", "ds2d2"])
    add_results(file, [result("ds2d2", 0, 0.4)], ["plain", "ds2d2"])
    assert [(r.arm, r.seed, r.map50) for r in read_results(file)] == [
        ("plain", 0, 0.3), ("ds2d2", 0, 0.4), ("plain", 1, 0.2),
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["", "arm,seed\nplain,0\n", "arm,seed,map50\nplain,x,0.1\n"])
def test_broken_results_end_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.csv").write_text(text, encoding="utf-8")
    with pytest.raises(BadUseError, match="holds no result") as e:
        read_results(tmp_path / "r.csv")
    assert "\n" not in str(e.value)


def test_summary_by_hand() -> None:
    summary = summarise(results(), "plain", 0.95)
    assert summary.arms == ("teacher", "plain", "ds2d2")
    line = summary.entry("last", "size", "0-16", "map50", "ds2d2")
    assert line is not None
    assert line.difference is not None
    assert line.values.mean == pytest.approx(0.42)
    assert (line.difference.mean, line.difference.sd) == (pytest.approx(0.05), pytest.approx(0.03))
    assert summary.entry("last", "size", "96+", "map50", "ds2d2") is None
    teacher = summary.entry("best", "all", "all", "map50_95", "teacher")
    assert teacher is not None
    assert (teacher.values.mean, teacher.difference) == (0.275, None)


def test_tables_hold_the_numbers() -> None:
    summary = summarise(results(), "plain", 0.95)
    row = next(x for x in overall(summary, "last").splitlines() if x.startswith("| ds2d2"))
    # half of the mean differences' 4.303 * 0.03 / sqrt(3) each way; (0.21 - 0.185) / (0.275 - 0.185) of the gap
    assert [c.strip() for c in row.split("|")[1:-1]] == [
        "ds2d2", "3", "0.420 ± 0.020", "+0.050 [-0.025, +0.125]", "0.210 ± 0.010", "+0.025 [-0.012, +0.062]", "28%",
    ]  # fmt: skip
    sizes = grouped(summary, "last", "size", "map50").splitlines()
    assert [c.strip() for c in sizes[2].split("|")[1:-1]] == [
        "0-16", "9", "0.370 ± 0.026", "0.550", "+0.050 [-0.025, +0.125]",
    ]  # fmt: skip
    assert len(sizes) == 4  # no row for the group without objects
    assert len({len(x) for x in sizes}) == 1
    assert "swing by chance that seeds do not show: size 0-16 (9), size 16-32 (23)." in report(summary)


def test_a_checkpoint_that_was_not_measured_has_no_table() -> None:
    text = report(summarise([r for r in results() if r.weights != "best"], "plain", 0.95))
    assert "## last.pt" in text
    assert "## best.pt" not in text


def test_an_arm_without_a_teacher_or_a_baseline_of_its_group_closes_no_gap() -> None:
    rows = [r for r in results() if not (r.arm == "plain" and r.weights == "best")]
    table = overall(summarise(rows, "plain", 0.95), "best")
    assert table.splitlines()[-1].rstrip(" |").endswith("-")
    assert "%" not in table


def test_gap_is_taken_at_the_seeds_of_the_arm() -> None:
    rows = [r for r in results() if r.arm != "ds2d2" or r.seed == 0]
    row = next(x for x in overall(summarise(rows, "plain", 0.95), "last").splitlines() if x.startswith("| ds2d2"))
    # (0.2 - 0.175) / (0.275 - 0.175); with plain's mean over its three seeds it would be 17 %
    assert row.split("|")[-2].strip() == "25%"


def test_one_seed_has_no_interval_and_says_so() -> None:
    summary = summarise([r for r in results() if r.seed <= 0], "plain", 0.95)
    assert "[" not in overall(summary, "last")
    assert "One seed gives no spread and no interval" in "\n".join(remarks(summary))


def test_arms_that_learnt_nothing_are_not_called_equal() -> None:
    rows = [result(arm, seed, 0.0) for arm in VALUES for seed in range(2)]
    assert "No arm has learnt" in report(summarise(rows, "plain", 0.95))
    assert "No arm has learnt" not in report(summarise(results(), "plain", 0.95))


def test_runs_that_are_no_pairs_are_named() -> None:
    rows = [replace(r, initial_weights="other") if (r.arm, r.seed) == ("ds2d2", 1) else r for r in results()]
    remarks_text = "\n".join(remarks(summarise(rows, "plain", 0.95)))
    assert "Not paired: arms of seed 1 differ in the first weights" in remarks_text
    assert "Not paired" not in "\n".join(remarks(summarise(results(), "plain", 0.95)))


def test_times_of_runs_that_were_not_alone_are_left_out() -> None:
    rows = [replace(r, parallel=2) if r.arm == "ds2d2" else r for r in results()]
    summary = summarise(rows, "plain", 0.95)
    plain_row, ds2d2_row = (next(x for x in cost(summary).splitlines() if x.startswith(f"| {a} ")) for a in VALUES)
    assert "0.500 s" in plain_row
    assert "1.0 min" in plain_row
    assert "0.500 s" not in ds2d2_row
    assert "have no times here" in report(summary)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 3}, "epochs is 2 and 3"),
        ({"data_hash": "x"}, "data_hash"),
        ({"teacher_hash": "x"}, "teacher_hash is t and x"),
        ({"settings_hash": "x"}, "different settings"),
        ({}, "twice"),
    ],
)
def test_rows_of_two_comparisons_are_refused(change: dict[str, Any], message: str) -> None:
    rows = results()
    with pytest.raises(BadUseError, match=message):
        summarise([*rows, replace(rows[-1], **change, **({"seed": 9} if change else {}))], "plain", 0.95)


def test_runs_without_a_teacher_go_with_those_of_any() -> None:
    rows = [replace(r, teacher="", teacher_hash="") if r.arm == "plain" else r for r in results()]
    rows.sort(key=lambda r: r.arm != "plain")
    summary = summarise(rows, "plain", 0.95)
    assert overall(summary, "last") == overall(summarise(results(), "plain", 0.95), "last")
    assert "teacher t.pt" in report(summary)


def test_unknown_baseline_is_refused() -> None:
    with pytest.raises(BadUseError, match="baseline=plane has no results: there are ds2d2, plain, teacher"):
        summarise(results(), "plane", 0.95)


def test_all_tables_come_from_the_raw_results_alone_in_seconds(tmp_path: Path) -> None:
    write_results(tmp_path / "results.csv", results())
    began = time.process_time()  # what else the machine does is not counted
    comparison = compare(results=str(tmp_path / "results.csv"), baseline="plain", level=0.9)
    assert time.process_time() - began < 10
    assert str(comparison).startswith("# Comparison with plain")
    assert (tmp_path / "compare.md").read_text(encoding="utf-8").startswith(comparison.text)
    height, width = cv2.imread(str(tmp_path / "compare.png")).shape[:2]
    assert width > height > 100
    table = list(csv.DictReader((tmp_path / "summary.csv").read_text(encoding="utf-8").splitlines()))
    line = next(x for x in table if (x["weights"], x["by"], x["metric"], x["arm"]) == ("last", "all", "map50", "ds2d2"))
    assert (line["seeds"], line["level"], float(line["difference_mean"])) == ("3", "0.9", pytest.approx(0.05))
    # Student's t with 2 degrees of freedom: 2.920 at 90 %
    assert float(line["difference_high"]) == pytest.approx(0.05 + 2.91998558 * 0.03 / 3**0.5)


def test_groups_of_few_objects_are_not_drawn() -> None:
    rows = [
        replace(r, objects={"0-16": MIN_OBJECTS - 1, "16-32": MIN_OBJECTS}.get(r.group, r.objects)) for r in results()
    ]
    groups = shown_groups(summarise([replace(r, objects=5) if r.by == "all" else r for r in rows], "plain", 0.95))
    assert groups == [("all", "all"), ("size", "16-32")]


def test_no_two_arms_look_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    rows = [result("plain", 0, 0.3), *(result(f"arm{i}", 0, 0.4) for i in range(13))]
    draw(summarise(rows, "plain", 0.95), tmp_path / "compare.png")
    lines = figures[0].axes[0].get_legend_handles_labels()[0]
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == 13


def test_results_train_nothing(tmp_path: Path) -> None:
    with pytest.raises(BadUseError, match="leave out epochs="):
        compare(results=str(tmp_path / "results.csv"), epochs=3)
    with pytest.raises(BadUseError, match="cannot be read"):
        compare(results=str(tmp_path / "results.csv"))
