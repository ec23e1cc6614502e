"""The count of a distilled step: fake models against real ones, the fused kernels, the tables of the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["--teacher", "yolov8s-obb.yaml", "--imgsz", "64", "--batch", "2", "--boxes", "3", "--types", "float16"]


@pytest.fixture(scope="module")
def tools() -> Any:
    """The modules of the tool."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.syspath_prepend(str(ROOT / "tools"))
        import count_step
        import step_work

        yield step_work, count_step


@pytest.fixture(scope="module")
def single(tools: Any) -> Any:
    """A small case in float32."""
    work, _ = tools
    return work.Step(work.Case("yolov8s-obb.yaml", "yolov8n-obb.yaml", 64, half=False, batch=2, boxes=3)).count()


def test_student_and_teacher_count_as_real_ones(tools: Any, single: Any) -> None:
    work, _ = tools
    step, images = work.Step(single.case), torch.zeros(2, 3, 64, 64)
    with FlopCounterMode(display=False) as flops:
        step.distiller.teacher(images)
    assert single.parts["teacher"].work.flops == flops.get_total_flops()
    assert step._student(images).forward.kernels == single.parts["student"].forward.kernels
    # all but the gradient of the images
    first = 2 * 16 * 3 * 9 * 2 * 32 * 32
    assert single.parts["student"].backward.flops == 2 * single.parts["student"].forward.flops - first


def test_adapters_and_least_traffic_are_what_the_formulae_say(single: Any) -> None:
    cells, narrow, wide = (64, 16, 4), (64, 128, 256), (128, 256, 512)
    products = sum(2 * 2 * n * s * t for n, s, t in zip(cells, narrow, wide, strict=True))
    assert single.parts["adapters"].forward.flops == products
    assert single.parts["adapters"].backward.flops == 2 * products
    size = sum(2 * 4 * n * t for n, t in zip(cells, wide, strict=True))
    assert (single.minimum.forward.bytes, single.minimum.backward.bytes) == (2 * size, 3 * size)


def test_no_part_takes_back_what_another_one_counted(single: Any) -> None:
    for name, part in {**single.parts, "fused": single.fused}.items():
        for work in (part.forward, part.backward):
            assert all(number >= 0 for number in work.kernels.values()), name
    assert single.step().bytes == sum(part.work.bytes for part in single.parts.values())
    assert single.floor.bytes < single.step(fused=True).bytes < single.step().bytes


def test_fused_kernels_bring_the_explicit_terms_within_twice_their_least_traffic(tools: Any) -> None:
    work, _ = tools
    counted = work.Step(work.Case("yolov8s-obb.yaml", "yolov8n-obb.yaml", 320, batch=4, boxes=3)).count()
    least, fused = counted.minimum, counted.fused
    assert counted.parts[work.EXPLICIT].work.bytes > 10 * least.work.bytes
    assert fused.work.bytes < 2 * least.work.bytes
    assert least.forward.bytes < fused.forward.bytes < 1.02 * least.forward.bytes
    # the guard against values that are not finite reads and writes the gradient once more
    assert 5 / 3 * least.backward.bytes < fused.backward.bytes < 1.02 * 5 / 3 * least.backward.bytes


def tables(text: str) -> list[list[list[str]]]:
    """Return the cells of the tables of a text."""
    parsed: list[list[list[str]]] = [[]]
    for line in text.splitlines():
        if line.startswith("|"):
            parsed[-1].append([cell.strip() for cell in line.strip("|").split("|")])
        elif parsed[-1]:
            parsed.append([])
    return [table for table in parsed if table]


def test_tables_of_the_page_are_those_of_the_tool(tools: Any, capsys: pytest.CaptureFixture[str]) -> None:
    _, tool = tools
    tool.main([*SMALL, "--markdown"])
    parts, cases = tables(capsys.readouterr().out)
    page = (ROOT / "docs/cost.md").read_text(encoding="utf-8")
    section = page.split("\n## By count, for GPUs\n")[1].split("\n## ")[0]
    page_parts, page_cases, _ = tables(section)
    assert [row[0] for row in page_parts] == [row[0] for row in parts]
    assert page_parts[:2] == parts[:2]
    assert page_cases[:2] == cases[:2]
    kernels = {row[0]: int(row[4]) for row in page_parts[2:]}
    assert kernels["all four terms"] == sum(kernels[name] for name in list(kernels)[:10]), "one run made the table"
    assert {len(row) for table in (parts, cases, page_parts) for row in table} == {len(parts[0]), len(cases[0])}
    assert [row[:3] for row in page_cases[2:]] == [
        [f"YOLOv8{size}-obb to YOLOv8n-obb", px, kind]
        for kind in ("float16", "float32")
        for size in "xs"
        for px in ("640", "1024")
    ]
