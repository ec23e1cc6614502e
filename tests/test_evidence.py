"""The evidence: its tables are those of the raw results, its headline is in them, and its command does what it says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ds2d2_yolo import compare as comparing
from ds2d2_yolo.compare.options import CompareOptions
from ds2d2_yolo.compare.plan import Plan
from ds2d2_yolo.compare.results import read_results
from ds2d2_yolo.compare.summary import summarise
from ds2d2_yolo.compare.tables import overall, report
from ds2d2_yolo.errors import BadUseError

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "evidence.md").read_text(encoding="utf-8")
RESULTS = sorted((ROOT / "docs" / "evidence").glob("*/results.csv"))


@pytest.fixture
def evidence(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import evidence

    return evidence


def test_there_is_evidence() -> None:
    assert len(RESULTS) >= 1


@pytest.mark.parametrize("file", RESULTS, ids=lambda file: file.parent.name)
def test_tables_are_those_of_the_raw_results(file: Path) -> None:
    summary = summarise(read_results(file), "plain", 0.95)
    assert (file.parent / "compare.md").read_text(encoding="utf-8").startswith(report(summary))
    assert overall(summary, "last") in PAGE


def test_command_runs_what_the_page_says(
    evidence: Any, tmp_path: Path, tiny_data: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # which the tool sets, and this undoes
    seen: dict[str, Any] = {}
    monkeypatch.setattr(comparing, "compare", lambda **keys: seen.update(keys))
    trained: list[Path] = []
    monkeypatch.setattr(evidence, "train_teacher", lambda data, folder, schedule: trained.append(folder) or folder)
    data = tiny_data("obb")
    evidence.main([str(data), "--arms", "ds2d2", "--seeds", "1", "--folder", str(tmp_path)])
    assert trained == [tmp_path / "teacher"]
    assert (seen["seeds"], seen["arms"], seen["data"]) == ([1], "ds2d2", str(data))
    measured = read_results(next(file for file in RESULTS if file.parent.name == "hituav"))[0]
    assert (seen["imgsz"], seen["epochs"]) == (measured.imgsz, measured.epochs)
    for arms, seeds, runs in (("ds2d2", 1, 1), ("fu2:imfu_share=2.0", 1, 1), (evidence.ARMS, 2, 11)):
        evidence.main([str(data), "--arms", arms, "--seeds", *map(str, range(seeds)), "--folder", str(tmp_path)])
        options = CompareOptions.of(seen, "compare", passing=set(seen))
        assert len(Plan.of(options, CompareOptions.split(seen)[1]).runs) == runs
    trained.clear()
    with pytest.raises(BadUseError, match="unknown arm"):
        evidence.main([str(data), "--arms", "ds3d3", "--folder", str(tmp_path)])
    assert not trained


@pytest.mark.slow
def test_teacher_is_trained_once(evidence: Any, tmp_path: Path, tiny_data: Callable[[str], Path]) -> None:
    schedule = {**evidence.SCHEDULE, "epochs": 1, "imgsz": 96, "fraction": 1.0, "val": False}
    best = evidence.train_teacher(tiny_data("obb"), tmp_path / "teacher", schedule)
    before = best.stat().st_mtime_ns
    assert evidence.train_teacher(tiny_data("obb"), tmp_path / "teacher", schedule).stat().st_mtime_ns == before
