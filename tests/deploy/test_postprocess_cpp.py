"""The C++ twin of the NumPy code beside an exported file: the same detections from the same output."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ds2d2_yolo.deploy import postprocess

REPOSITORY = Path(__file__).resolve().parents[2]
COMPILER = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
pytestmark = pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler")
# reads "letterbox" or "detect", the fields of Model, and numbers; prints numbers
PROGRAM = r"""
#include "postprocess.hpp"
#include <cstdio>
#include <iostream>
#include <string>

int main() {
    std::string command;
    postprocess::Model m;
    int rows, columns, channels;
    std::cin >> command >> m.height >> m.width >> m.classes >> m.rotated >> m.end2end >> m.conf >> m.iou >> m.max_det;
    std::cin >> rows >> columns >> channels;
    if (command == "letterbox") {
        std::vector<std::uint8_t> image(std::size_t(rows) * columns * channels);
        for (auto& pixel : image) { int value; std::cin >> value; pixel = std::uint8_t(value); }
        std::vector<float> input;
        const auto frame = postprocess::letterbox(image.data(), rows, columns, channels, m, input);
        std::printf("%.17g %d %d\n", frame.scale, frame.left, frame.top);
        for (float value : input) std::printf("%.9g ", value);
        return 0;
    }
    postprocess::Frame frame;
    std::cin >> frame.scale >> frame.left >> frame.top;
    std::vector<float> raw(std::size_t(rows) * columns);
    for (auto& value : raw) std::cin >> value;
    for (const auto& b : postprocess::detect(raw.data(), rows, columns, frame, m))
        std::printf("%.9g %.9g %.9g %.9g %.9g %.9g %d\n", b.x, b.y, b.w, b.h, b.angle, b.score, b.label);
}
"""


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[list[float]]]:
    """Run the compiled twin; return its lines of numbers."""
    folder = tmp_path_factory.mktemp("twin")
    (folder / "main.cpp").write_text(PROGRAM, encoding="utf-8")
    assets = REPOSITORY / "docs" / "assets"
    strict = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", f"-I{assets}"]
    subprocess.run([str(COMPILER), *strict, str(folder / "main.cpp"), "-o", str(folder / "twin")], check=True)

    def run(command: str, *numbers: Any) -> list[list[float]]:
        words = [command, *(f"{float(n):.9g}" for array in numbers for n in np.ravel(array))]
        done = subprocess.run([str(folder / "twin")], input=" ".join(words), capture_output=True, text=True, check=True)
        return [[float(word) for word in line.split()] for line in done.stdout.splitlines()]

    return run


def raw_output(rng: np.random.Generator, classes: int, rotated: bool, end2end: bool) -> Any:
    """Return an output with crowds of overlapping boxes."""
    count = 400
    centres = rng.uniform(10, 90, (20, 2))[rng.integers(0, 20, count)] + rng.normal(0, 2, (count, 2))
    sides = rng.uniform(4, 24, (count, 2))
    scores = rng.uniform(0, 1, (count, classes)) ** 3
    angles = rng.uniform(-np.pi / 4, 3 * np.pi / 4, (count, 1))[:, : int(rotated)]
    if not end2end:
        return np.concatenate((centres, sides, scores, angles), 1).T.astype(np.float32)
    boxes = (centres, sides) if rotated else (centres - sides / 2, centres + sides / 2)
    labels = rng.integers(0, classes, (count, 1))
    return np.concatenate((*boxes, scores[:, :1], labels, angles), 1).astype(np.float32)


@pytest.mark.parametrize("end2end", [False, True])
@pytest.mark.parametrize("rotated", [False, True])
def test_finds_what_the_numpy_code_finds(
    rotated: bool, end2end: bool, twin: Callable[..., list[list[float]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("car", "ship", "plane")
    for name, value in {"NAMES": names, "ROTATED": rotated, "END2END": end2end}.items():
        monkeypatch.setattr(postprocess, name, value)
    raw = raw_output(np.random.default_rng(3), len(names), rotated, end2end)
    frame = postprocess.Frame(0.625, 3, 7)
    expected = postprocess.detect(raw, frame, 0.3, 0.4, 120)
    model = 96, 96, len(names), rotated, end2end, 0.3, 0.4, 120
    detections = np.array(twin("detect", model, (*raw.shape, 1), frame, raw))
    assert 20 < len(expected) <= 120
    assert detections.shape == expected.shape
    np.testing.assert_allclose(detections, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("size", [(50, 130), (131, 47), (97, 96)])
@pytest.mark.parametrize("channels", [1, 3])
def test_letterbox_is_that_of_the_numpy_code(
    size: tuple[int, int], channels: int, twin: Callable[..., list[list[float]]]
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, channels), dtype=np.uint8)
    pixels, frame = postprocess.letterbox(image, 96, 64)
    place, values = twin("letterbox", (96, 64, 1, 1, 0, 0.25, 0.7, 300), (*size, channels), image)
    assert place == pytest.approx(frame, rel=1e-12)
    steps = np.abs(np.reshape(values, pixels.shape) - pixels) * 255
    assert steps.max() < 1.01, "float32 rounding may decide a level that lies between two"
    assert (steps > 0.01).mean() < 0.001
