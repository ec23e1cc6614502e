"""The tool that shows where terms act: its tables and its CSV hold what the probe measured."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(TOOLS))
    import probe_terms

    return probe_terms


def test_tables_and_rows(
    tool: Any, checkpoint: Callable[..., Path], tiny_data: Callable[[str], Path], tmp_path: Path, capsys: Any
) -> None:
    models = [str(checkpoint("yolov8s.yaml")), "yolov8n.yaml", str(tiny_data("detect"))]
    sizes = ["--images", "4", "--imgsz", "96", "--batch", "2", "--csv", str(tmp_path / "rows.csv")]
    tool.main([*models, "implicit=False", "levels=[8,32]", "device=cpu", *sizes])
    text = capsys.readouterr().out
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    assert "4 images of 96 px" in text
    assert lines[0] == ["by stride", "8", "32"]
    with (tmp_path / "rows.csv").open(newline="") as f:
        rows = list(csv.DictReader(f))
    assert {row["of"] for row in rows if row["measure"] == "gradient"} == {"task", "exlo", "exhi"}
    explained_variance = {row["stride"]: float(row["value"]) for row in rows if row["measure"] == "explained"}
    (shown,) = [cells for cells in lines if cells[0] == "R^2 of the adapted features"]
    assert [float(cell) for cell in shown[1:]] == pytest.approx(
        [explained_variance["8.0"], explained_variance["32.0"]], abs=1e-3
    )
    (objects,) = [cells for cells in lines if cells[0] == "predictions of the student"]
    sums = {row["measure"]: float(row["value"]) for row in rows if row["of"] == "student"}
    assert float(objects[1]) == sums["objects"] == 16
    assert float(objects[3]) == pytest.approx(sums["without"] / 16, abs=1e-3)


def test_what_is_no_setting_is_refused(tool: Any, capsys: Any) -> None:
    with pytest.raises(SystemExit):
        tool.main(["teacher.pt", "yolov8n.yaml", "data.yaml", "weight_map"])
    assert "settings are key=value: weight_map" in capsys.readouterr().err
    with pytest.raises(SystemExit, match=r"missing\.pt"):
        tool.main(["missing.pt", "yolov8n.yaml", "data.yaml"])
