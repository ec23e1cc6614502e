"""The cost benchmark: every variant comes out, and none computes a pass that its terms do not need."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    import bench_cost

    return bench_cost


def run(
    bench: Any, monkeypatch: pytest.MonkeyPatch, file: Path, *models: str, imgsz: int = 64, variants: Any = ()
) -> dict[str, Any]:
    """Measure a pair; the peaks are measured in this process, starting one a variant takes long."""
    peaks = iter(range(1, 100))
    monkeypatch.setattr(bench, "peak_apart", lambda *_: float(next(peaks)))
    size = ["--imgsz", str(imgsz), "--batch", "4", "--boxes", "3", "--repeats", "1", "--classes", "3", "--threads", "0"]
    size += ["--variants", *variants] if variants else []
    bench.main(["--teacher", models[0], "--student", models[1], *size, "--json", str(file)])
    (table,) = json.loads(file.read_text(encoding="utf-8"))
    return table


@pytest.mark.slow
@pytest.mark.parametrize("pair", [("yolov8n.yaml", "yolov8n.yaml"), ("yolo11n-obb.yaml", "yolov8n-obb.yaml")])
def test_every_variant_is_measured(
    bench: Any, pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    rows = run(bench, monkeypatch, tmp_path / "cost.json", *pair)["variants"]
    assert list(rows) == list(bench.VARIANTS)
    for name, row in rows.items():
        assert "reason" not in row, f"{name}: {row}"
        assert all(math.isfinite(value) and value > 0 for value in row.values()), f"{name}: {row}"
        assert row["minimum ms"] <= row["ms"]
    assert rows[bench.FLOOR]["over floor"] == 1
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert len(printed) == 1 + len(bench.VARIANTS)


@pytest.mark.slow
def test_steps_take_the_passes_of_their_terms_and_no_more(
    bench: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    table = run(bench, monkeypatch, tmp_path / "cost.json", "yolov8s.yaml", "yolov8n.yaml")
    flops = {name: row["gflops"] for name, row in table["variants"].items()}
    passes = table["passes"]
    head, back = passes["teacher's head"], passes["input gradient of that head"]
    # decoding, a convolution of 16 channels to 1, is in none of the passes
    about = partial(pytest.approx, rel=1e-3)
    assert flops["floor"] == about(flops["plain student"] + passes["teacher without head"] + head)
    explicit = flops["floor"] + passes["adapters forward and backward"]
    assert flops["explicit only"] == about(explicit - head), "the head does not run"
    assert flops["explicit only, by scores"] == about(explicit), "the scores are the head's"
    # the teacher's own answer comes with its forward pass; the high-frequency amplifier's is a pass of its own
    assert flops["explicit + imfu"] == about(explicit + head + back)
    # hf(A S) is computed as A hf(S): the adapters once more, on fewer channels of high frequencies
    amplified = 2 * head + back + passes["adapters forward and backward"]
    assert flops["all four terms"] == about(explicit + head + back + amplified)
    assert flops["all four, by scores"] == flops["all four terms"]
    assert flops["explicit + imfu, balanced"] == flops["explicit + imfu"]


def test_heads_take_fewer_operations_where_adapters_are_composed(
    bench: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """At 96 px and a batch of 4 the finest of three levels is: 576 cells, 64 channels to 128."""
    named = ["explicit only", "explicit + imfu"]
    table = run(bench, monkeypatch, tmp_path / "c.json", "yolov8s.yaml", "yolov8n.yaml", imgsz=96, variants=named)
    assert list(table["variants"]) == [bench.FLOOR, *named]
    flops, passes = {name: row["gflops"] for name, row in table["variants"].items()}, table["passes"]
    head_gflops = passes["teacher's head"] + passes["input gradient of that head"]
    kernel = 2 * 9 * (64 + 128) * 1e-9  # additions too; two branches open with 3 x 3 convolutions
    saved_gflops = kernel * (2 * 576 * 128 - 3 * 576 * 64 - 2 * 64 * 128)
    composed_gflops = flops["explicit + imfu"] - flops["explicit only"] - passes["teacher's head"]
    assert composed_gflops == pytest.approx(head_gflops - saved_gflops, rel=2e-3)


def test_a_pair_that_upstream_does_not_take_gets_a_dash(
    bench: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    names, models = (bench.UPSTREAM, "all four terms"), ("yolov8s-p2.yaml", "yolov8n.yaml")
    rows = run(bench, monkeypatch, tmp_path / "cost.json", *models, variants=names)["variants"]
    assert "ValueError" in rows[bench.UPSTREAM]["reason"]
    assert math.isfinite(rows["all four terms"]["ms"])
    (line,) = [s for s in capsys.readouterr().out.splitlines() if s.startswith("| distill_model")]
    assert "| - |" in line
    assert "same number of feature levels" in line


def test_peak_memory_comes_from_a_process_of_its_own(bench: Any) -> None:
    case = bench.Case("yolov8n.yaml", "yolov8n.yaml", 64, 2, 3, 3, "cpu", 0)
    assert 1 < bench.peak_apart(case, bench.PLAIN) < 1000
