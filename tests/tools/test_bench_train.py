"""The benchmark of real steps: each variant runs, and an epoch that is too short is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.quantised import needs_modelopt

TOOLS = Path(__file__).resolve().parents[2] / "tools"
Bench = Callable[..., dict[str, list[float]]]


@pytest.fixture
def bench(
    monkeypatch: pytest.MonkeyPatch, checkpoint: Callable[..., Path], tiny_data: Callable[[str], Path], tmp_path: Path
) -> Bench:
    """Measure variants on the tiny data, with one image in a batch."""
    monkeypatch.syspath_prepend(str(TOOLS))
    import bench_train

    monkeypatch.setattr(bench_train, "CALIBRATION_BATCHES", 1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # set by the tool, and put back after the test

    def run(*variants: str, **options: Any) -> dict[str, list[float]]:
        options = {"imgsz": 64, "batch": 1, "steps": 1, "rounds": 1, **options}
        words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
        file = tmp_path / "figures.json"
        models = [str(checkpoint("yolov8s-obb.yaml")), "yolov8n-obb.yaml", str(tiny_data("obb"))]
        bench_train.main([*models, *words, "--json", str(file), "--variants", *(variants or bench_train.VARIANTS)])
        return dict(json.loads(file.read_text(encoding="utf-8")))

    return run


def test_measures_the_plain_student_and_what_is_named(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    seconds = bench("`imhi=0`", steps=2)
    assert {name: len(steps) for name, steps in seconds.items()} == {"plain student": 2, "`imhi=0`": 2}
    assert all(step > 0 for steps in seconds.values() for step in steps)
    assert "| 1.00 |" in capsys.readouterr().out


@needs_modelopt
@pytest.mark.slow
def test_every_variant_runs(bench: Bench) -> None:
    seconds = bench()
    assert len(seconds) == 11
    assert all(len(steps) == 1 for steps in seconds.values())


def test_an_epoch_that_is_too_short_is_named(bench: Bench) -> None:
    with pytest.raises(SystemExit, match="plain student: an epoch has fewer than 100 steps: raise --fraction"):
        bench("`imhi=0`", steps=99)
