"""The NumPy code beside an exported file: it finds what Ultralytics finds in the same output."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from ultralytics.data.augment import LetterBox
from ultralytics.utils.metrics import batch_probiou
from ultralytics.utils.ops import regularize_rboxes, xywhr2xyxyxyxy

from ds2d2_yolo.bridge.inference.backend_model import BackendModel, NMSSettings
from ds2d2_yolo.deploy import export, postprocess
from ds2d2_yolo.deploy.images import find_images, read_images
from ds2d2_yolo.deploy.matching import Margins, ModelOutputs, compare

MARGINS = Margins(iou=0.99, score=0.002, nms_iou=0.7, max_det=300)


def load(file: Path) -> ModuleType:
    """Import a Python file by its path."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def by_score(rows: Any) -> Any:
    """Rows by score, then by place: in bfloat16 scores are often equal."""
    return rows[np.lexsort((rows[:, 1], rows[:, 0], -rows[:, 5]))]


@pytest.mark.parametrize(
    ("yaml", "keys"),
    [
        ("yolov8n-obb.yaml", {}),
        ("yolov8n.yaml", {"imgsz": [96, 64], "conf": 0.4, "iou": 0.5, "max_det": 5}),
        ("yolo26n-obb.yaml", {"nms": False}),
        pytest.param("yolo26n.yaml", {"nms": False}, marks=pytest.mark.slow),
        pytest.param("yolo26n-obb.yaml", {}, marks=pytest.mark.slow),
        pytest.param("yolov8n-obb.yaml", {"format": "openvino"}, marks=pytest.mark.slow),
    ],
)
def test_finds_what_ultralytics_finds_in_the_output_of_the_runtime(
    yaml: str, keys: dict[str, Any], detecting: Callable[..., Path], tiny_data: Callable[[str], Path], tmp_path: Path
) -> None:
    task = "obb" if "obb" in yaml else "detect"
    exported = export(model=str(detecting(yaml, tmp_path, 0.5)), check=False, **{"format": "onnx", **keys})
    assert exported.postprocess is not None
    assert f"{exported.postprocess} decodes it" in str(exported)
    module = load(exported.postprocess)
    model = BackendModel(exported.file, task, torch.device("cpu"))
    assert (model.rotated, model.end2end) == (module.ROTATED, module.END2END)
    assert tuple(model.model.names.values()) == module.NAMES
    shape = module.HEIGHT, module.WIDTH
    assert list(shape) == keys.get("imgsz", [96, 96])
    nms = NMSSettings(module.CONF, 0.001, module.IOU, module.MAX_DET, agnostic=False)
    assert tuple(keys.get(key, default) for key, default in (("conf", 0.25), ("iou", 0.7), ("max_det", 300))) == (
        module.CONF,
        module.IOU,
        module.MAX_DET,
    )
    images = read_images(*find_images(None, str(tiny_data(task)), None, 96), 4).pixels
    detected = 0
    for image, (expected, _) in zip(images, model.detect(images, shape, 1, nms), strict=True):
        raw = model.forward(model.prepare([image], shape))[0].numpy()
        rows = module.decode(raw)
        rows = (rows if module.END2END else module.suppress(rows))[: module.MAX_DET]
        assert rows.shape == expected.shape
        assert (np.diff(rows[:, 5]) <= 0).all()
        np.testing.assert_allclose(by_score(rows), by_score(expected), rtol=1e-5, atol=1e-4)
        detected += len(rows)
    assert detected > 10


def test_from_image_to_image_it_agrees_with_the_checkpoint(
    detecting: Callable[..., Path], tiny_data: Callable[[str], Path], tmp_path: Path
) -> None:
    """The letterbox in NumPy and onnxruntime alone, against PyTorch behind OpenCV's letterbox, as the parity check."""
    onnxruntime = pytest.importorskip("onnxruntime")
    checkpoint = detecting("yolov8n-obb.yaml", tmp_path, 0.25)
    exported = export(model=str(checkpoint), format="onnx", check=False)
    assert exported.postprocess is not None
    module = load(exported.postprocess)
    session = onnxruntime.InferenceSession(str(exported.file))
    model = BackendModel(checkpoint, "obb", torch.device("cpu"), end2end=False)
    images = read_images(*find_images(None, str(tiny_data("obb")), None, 96), 4).pixels
    nms = NMSSettings(0.25, 0.24, 0.7, 300, agnostic=False)
    pairs = 0
    for image, (expected, candidates) in zip(images, model.detect(images, (96, 96), 1, nms), strict=True):
        pixels, frame = module.letterbox(image[..., ::-1])
        raw = session.run(None, {session.get_inputs()[0].name: pixels})[0][0]
        rows = module.suppress(module.decode(raw, 0.24))
        outputs = (
            ModelOutputs.from_rows(x, y, True) for x, y in ((expected, candidates), (rows, module.decode(raw, 0.2)))
        )
        result = compare(*outputs, 0.26, MARGINS)
        pairs += len(result.pairs)
        assert not len(result.only_torch) + len(result.only_file)
        assert module.detect(raw, frame).shape[1] == 7
    assert pairs > 10


@pytest.mark.parametrize("size", [(96, 96), (50, 130), (131, 47), (300, 200), (97, 96)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_letterbox_is_that_of_ultralytics(size: tuple[int, int], channels: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, channels), dtype=np.uint8)
    pixels, frame = postprocess.letterbox(image, 96, 64)
    expected = LetterBox((96, 64))(image=image)
    expected = expected if expected.ndim == 3 else expected[..., None]
    assert pixels.dtype == np.float32
    difference = np.abs(pixels[0].transpose(1, 2, 0) * 255 - expected)
    assert difference.max() <= 1.01, "OpenCV rounds the weights of its interpolation to 11 bits"
    assert difference.mean() < 0.25
    row = np.array([[frame.left, frame.top, 0, 0, 0, 1, 0]], np.float32)
    assert postprocess.to_image(row, frame)[0, :2].tolist() == [0, 0]


def test_boxes_of_the_image_are_those_of_ultralytics() -> None:
    rng = np.random.default_rng(1)
    rows = rng.uniform(1, 60, (200, 7)).astype(np.float32)
    rows[:, 4] = rng.uniform(-np.pi / 4, 3 * np.pi / 4, 200)
    moved = postprocess.to_image(rows, postprocess.Frame(0.5, 3, 7))
    boxes = torch.from_numpy(rows[:, :5].copy())
    boxes[:, :2] -= torch.tensor([3.0, 7.0])
    boxes[:, :4] /= 0.5
    np.testing.assert_allclose(moved[:, :5], regularize_rboxes(boxes).numpy(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(postprocess.corners(moved), xywhr2xyxyxyxy(moved[:, :5]), rtol=1e-4, atol=1e-3)


def test_overlaps_are_those_of_the_formulae() -> None:
    rng = np.random.default_rng(2)
    rows = rng.uniform(1, 30, (60, 7)).astype(np.float32)
    rows[:, 4] = rng.uniform(-1, 3, 60)
    overlaps = np.stack([postprocess.oriented_overlap(row, rows) for row in rows])
    np.testing.assert_allclose(overlaps, batch_probiou(rows[:, :5], rows[:, :5]).numpy(), atol=2e-4)
    box, other = (
        np.array([[5, 5, 4, 2, 0, 1, 0]], float),
        np.array([[6, 5, 4, 2, 0, 1, 0], [20, 5, 4, 2, 0, 1, 0]], float),
    )
    np.testing.assert_allclose(postprocess.upright_overlap(box[0], other), [6 / 10, 0])


def test_dropped_predictions_drop_others_where_boxes_are_oriented(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chain: the first overlaps the second, which overlaps the third. A class apart suppresses nothing."""
    rows = np.array(
        [[x, 0, 10, 10, 0, s, c] for x, s, c in ((0, 0.9, 0), (4, 0.8, 0), (8, 0.7, 0), (0, 0.6, 1))], float
    )
    assert postprocess.suppress(rows, 0.3)[:, 0].tolist() == [0, 0]
    monkeypatch.setattr(postprocess, "ROTATED", False)
    assert postprocess.suppress(rows, 0.3)[:, 0].tolist() == [0, 8, 0]
    assert postprocess.suppress(rows[:0], 0.3).shape == (0, 7)


def test_file_needs_numpy_alone_and_is_left_out_where_the_file_suppresses(
    detecting: Callable[..., Path], tmp_path: Path
) -> None:
    model = str(detecting("yolov8n-obb.yaml", tmp_path, 0.5))
    assert export(model=model, format="onnx", nms=True, check=False).postprocess is None
    file = export(model=model, format="onnx", check=False).postprocess
    assert file is not None
    tree = ast.parse(file.read_text(encoding="utf-8"))
    imported = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    imported |= {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module}
    assert imported == {"numpy", "typing", "__future__"}
    assert f"import {file.stem} as post" in (ast.get_docstring(tree) or "")
