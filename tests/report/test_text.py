"""The text of the pre-flight report: readable, narrow, and free of torch and Ultralytics."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from ds2d2_yolo.report.facts import (
    AmplifierFacts,
    ClassFacts,
    GainFacts,
    Layer,
    LevelFacts,
    MemoryFacts,
    ModelFacts,
    ParameterFacts,
    QualityFacts,
    Report,
    RunFacts,
)
from ds2d2_yolo.report.text import MEMORY_ERROR, WIDTH, render

MIB = 2**20


def layer(index: int, kind: str, channels: int, side: int) -> Layer:
    return Layer(index, kind, (channels, side, side))


@pytest.fixture
def report() -> Report:
    """A report at full width: four levels of a P2 model at 1280 px, long names."""
    levels = tuple(
        LevelFacts(
            s, layer(21 + i, "RepNCSPELAN4", c, 1280 // s), layer(18, "A2C2f", 2 * c, 1280 // s), (2 * c, c, 1, 1)
        )
        for i, (s, c) in enumerate(((4, 64), (8, 128), (16, 256), (32, 512)))
    )
    return Report(
        versions={"ds2d2-yolo": "0.1.0", "ultralytics": "8.4.190", "torch": "2.8.0+cu128"},
        run=RunFacts("obb", "2 x NVIDIA H200", 1280, 16, 100, amp=True),
        teacher=ModelFacts("/runs/teacher/weights/best.pt", "943521b12ffc" + 52 * "0", 68_150_000, 1032.4),
        student=ModelFacts("yolov8n-obb-p2.yaml", None, 3_080_000, None),
        levels=levels,
        levels_off=("stride 64: only the teacher has it",),
        classes=ClassFacts(3, 3, "the teacher's classes are the data's", ("red", "green", "blue"), "all are compared"),
        quality=QualityFacts(0.4154, 0.2271, 16, 0.05),
        amplifier=AmplifierFacts("to train", epochs=25, share=0.25),
        gains=GainFacts({"exlo": 0.05, "imfu": 0.1}, {"exhi": 0.5}, {"imhi": "imhi=0"}, 3, "cosine", 0.1, 80),
        parameters=ParameterFacts(3_000_000, 80_000, 170_000, "ridge", 68_150_000, 2_400_000),
        memory=MemoryFacts(
            12 * MIB, 11 * MIB, 22 * MIB, 12 * MIB, 260 * MIB, 9 * MIB, 0, 300 * MIB, 20 * MIB, 8, 1280, True
        ),
    )


def block(text: str, label: str) -> list[str]:
    """Return the lines that belong to a name on the left, without it."""
    lines = text.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith(label))
    last = next((i for i, line in enumerate(lines) if i > first and line[:1] != " "), len(lines))
    return [" ".join(line[12:].split()) for line in lines[first:last]]


def test_fits_a_terminal(report: Report) -> None:
    text = render(report)
    assert len(text.splitlines()) <= 40
    assert max(map(len, text.splitlines())) <= WIDTH
    assert not any(line != line.rstrip() for line in text.splitlines())


def test_says_what_is_known(report: Report) -> None:
    text = render(report)
    assert block(text, "DS2D2") == ["pre-flight report: ds2d2-yolo 0.1.0, ultralytics 8.4.190, torch 2.8.0+cu128"]
    assert block(text, "run") == ["obb, 1280 px, batch 16, 100 epochs, 2 x NVIDIA H200, AMP"]
    assert block(text, "models") == [
        "file SHA-256 parameters GFLOPs at 1280 px",
        "teacher best.pt 943521b12ffc 68.15 M 1032.4",
        "student yolov8n-obb-p2.yaml - 3.08 M -",
        "teacher: /runs/teacher/weights/best.pt",
    ]
    assert block(text, "levels")[1] == "4 21 RepNCSPELAN4 64x320x320 18 A2C2f 128x320x320 128x64x1x1"
    assert block(text, "levels")[-1] == "stride 64: only the teacher has it, left out"
    assert block(text, "classes") == ["the teacher's classes are the data's", "red, green, blue", "all are compared"]
    assert " ".join(block(text, "teacher")) == (
        "looks trained: mAP50 0.415, mAP50-95 0.227 on up to 16 validation images; the floor is mAP50 0.05"
    )
    assert block(text, "amplifier") == ["to be trained first: 25 epochs, 25% of the student's"]
    assert block(text, "gains") == [
        "automatic, share of the task loss's gradient: exlo 0.05, imfu 0.1",
        "given: exhi 0.5",
        "off: imhi (imhi=0)",
        "rising over 3 epochs, then cosine to 0.1 of them, last epoch 80",
    ]
    assert " ".join(block(text, "parameters")) == (
        "trained: student 3.00 M, adapters 0.17 M; the adapters start by ridge regression; "
        "frozen: teacher 68.15 M, amplifier 2.40 M, student 0.08 M"
    )
    memory = " ".join(block(text, "memory"))
    assert memory.startswith(
        "about 2.82 GiB on each device: 8 x 320 MiB for each image of 1280 px, with AMP weights 12 MiB,"
    )
    assert f"amplifier 9 MiB an estimate: {MEMORY_ERROR}" in memory
    assert block(text, "warnings") == ["none"]


def test_columns_are_aligned(report: Report) -> None:
    rows = render(report).splitlines()
    first = next(i for i, line in enumerate(rows) if line.startswith("levels"))
    places = {
        row.index(name) for row, name in zip(rows[first + 1 : first + 5], ("21 R", "22 R", "23 R", "24 R"), strict=True)
    }
    assert places == {rows[first].index("student layer")}
    assert len({len(row) for row in rows[first : first + 5]}) == 1


def test_long_lists_and_names_are_cut(report: Report) -> None:
    names = tuple(f"class-{i}" for i in range(80))
    file = f"/data/{'x' * 60}.pt"
    classes = replace(report.classes, teacher=80, data=80, shared=names)
    text = render(replace(report, classes=classes, teacher=replace(report.teacher, source=file)))
    assert text.count("class-") == 12
    assert "and 68 more" in text
    assert file in text
    assert all(len(line) <= WIDTH for line in text.splitlines())


def test_shared_classes_are_named_once(report: Report) -> None:
    match_text = "1 of the data's 2 classes is shared: red; the data alone have green"
    classes = ClassFacts(3, 2, match_text, ("red",), "the implicit stream compares 1 class")
    text = render(replace(report, classes=classes))
    assert text.count("shared: red") == 1
    assert len(block(text, "classes")) == 2


def test_warnings_stand_together(report: Report) -> None:
    lines = block(render(replace(report, warnings=("short", "long " * 40))), "warnings")
    assert lines[0] == "! short"
    assert lines[1].startswith("! long")
    assert len(lines) > 3


@pytest.mark.parametrize(
    ("changes", "label", "expected"),
    [
        ({"levels": (), "levels_off": ()}, "levels", "nothing is tapped"),
        ({"memory": None}, "memory", "not known"),
        ({"quality": QualityFacts(None, None, 0, 0.05)}, "teacher", "its mAP on these data is not known"),
        ({"quality": QualityFacts(0.01, 0.0, 4, 0.05)}, "teacher", "does not look trained: mAP50 0.010"),
        ({"amplifier": AmplifierFacts("not needed", reason="imhi=0")}, "amplifier", "not needed: imhi=0"),
        ({"amplifier": AmplifierFacts("to train")}, "amplifier", "to be trained first"),
        (
            {"amplifier": AmplifierFacts("to train", epochs=4, share=0.5, reason="the kept one has 2 epochs")},
            "amplifier",
            "to be trained first: 4 epochs, 50% of the student's; the kept one has 2 epochs",
        ),
        (
            {"amplifier": AmplifierFacts("kept", "/a/b.safetensors", 5, 0.5, 0.25, 0.75, 0.375)},
            "amplifier",
            "kept from an earlier run: 5 epochs, mAP50 0.500, mAP50-95 0.250 (the teacher's mAP50 0.750, mAP50-95 "
            "0.375); /a/b.safetensors",
        ),
        (
            {"amplifier": AmplifierFacts("given", "b.safetensors", 5)},
            "amplifier",
            "given: 5 epochs, its mAP was not measured; b.safetensors",
        ),
        (
            {"run": RunFacts("detect", "cpu", 96, -1, 2, False, True)},
            "run",
            "batch chosen by AutoBatch, 2 epochs, cpu, no AMP, resumed",
        ),
        (
            {"run": RunFacts("obb", "cpu", 320, 8, 2, False, teacher_imgsz=640)},
            "run",
            "obb, 320 px (the teacher 640 px), batch 8, 2 epochs",
        ),
        (
            {"run": RunFacts("obb", "cpu", 320, 8, 2, False, quantised=True)},
            "run",
            "no AMP, the student trains with INT8 fake quantisation",
        ),
    ],
)
def test_what_may_be_missing(changes: dict[str, Any], label: str, expected: str, report: Report) -> None:
    assert expected in " ".join(block(render(replace(report, **changes)), label))


def test_open_batch(report: Report) -> None:
    assert report.memory is not None
    text = render(replace(report, memory=replace(report.memory, images=None, copies=7 * MIB, amp=False)))
    memory = " ".join(block(text, "memory"))
    assert memory.startswith("batch not known yet: 320 MiB for each image of 1280 px")
    assert "AMP" not in memory
    assert "copies of weights 7 MiB" in memory


def test_all_gains_zero(report: Report) -> None:
    gains = GainFacts({}, {}, dict.fromkeys(("exlo", "exhi"), "gains=0"), 0, "constant", 0, 10)
    assert block(render(replace(report, gains=gains)), "gains") == ["off: exlo (gains=0), exhi (gains=0)"]


def test_needs_neither_torch_nor_ultralytics() -> None:
    code = "import sys, ds2d2_yolo.report.text; print({'torch', 'ultralytics'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
