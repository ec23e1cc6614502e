"""Exports of students that were trained with quantize=8."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ds2d2_yolo.bridge.upstream.hardware import int8_overflows
from ds2d2_yolo.deploy import export
from ds2d2_yolo.deploy.benchmarks.benchmarking import benchmark
from ds2d2_yolo.errors import BadUseError, DS2D2Error
from tests.helpers.quantised import needs_modelopt, quantise

pytestmark = needs_modelopt
CALM = 0.1  # see test_exporting.py
OBB, UPRIGHT = "yolov8n-obb.yaml", "yolov8n.yaml"


@pytest.fixture
def quantised(detecting: Callable[..., Path], tiny_data: Callable[[str], Path], tmp_path: Path) -> Callable[..., Path]:
    """A checkpoint of a quantised student that finds boxes in the tiny data."""
    return lambda yaml: quantise(detecting(yaml, tmp_path, CALM), tiny_data("obb" if "obb" in yaml else "detect"))


@pytest.mark.parametrize("yaml", [OBB, pytest.param(UPRIGHT, marks=pytest.mark.slow)])
def test_onnx_holds_the_ranges_and_finds_what_the_fake_quantised_model_finds(
    yaml: str, quantised: Callable[..., Path]
) -> None:
    import onnx

    exported = export(model=str(quantised(yaml)), format="onnx")
    assert exported.parity is not None
    assert exported.parity.holds
    assert exported.parity.matched > 60
    assert "against PyTorch with fake quantisation" in str(exported)
    assert "INT8 tolerances" in str(exported)
    nodes = [node.op_type for node in onnx.load(exported.file).graph.node]
    assert nodes.count("QuantizeLinear") > 50
    assert nodes.count("DequantizeLinear") >= nodes.count("QuantizeLinear")


@pytest.mark.parametrize("yaml", [OBB, pytest.param(UPRIGHT, marks=pytest.mark.slow)])
def test_openvino_computes_in_int8(yaml: str, quantised: Callable[..., Path]) -> None:
    openvino = pytest.importorskip("openvino")
    checked = not int8_overflows()
    exported = export(model=str(quantised(yaml)), format="openvino", check=checked)
    assert (exported.parity is not None) is checked
    if exported.parity is not None:
        assert exported.parity.holds
        assert exported.parity.matched > 60
    assert exported.file.name == "best_int8_openvino_model"
    kinds = [op.get_type_name() for op in openvino.Core().read_model(exported.file / "best.xml").get_ops()]
    assert kinds.count("FakeQuantize") > 50


def test_the_trtexec_line_of_a_file_with_ranges(quantised: Callable[..., Path]) -> None:
    with pytest.raises(DS2D2Error, match=r"trtexec --onnx=.*best.onnx --saveEngine=.*best.engine --int8 --fp16$"):
        export(model=str(quantised(UPRIGHT)), format="engine", check=False)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"format": "ncnn"}, r"trained with quantize=8, its ranges can be kept in format=onnx, openvino, engine"),
        ({"quantize": 16}, r"trained with quantize=8: it exports to INT8 alone"),
        ({"half": True}, r"trained with quantize=8: it exports to INT8 alone"),
    ],
)
def test_refuses_what_would_lose_the_ranges(keys: dict[str, Any], message: str, quantised: Callable[..., Path]) -> None:
    model = quantised(UPRIGHT)
    with pytest.raises(BadUseError, match=message):
        export(model=str(model), **keys)
    assert list(model.parent.iterdir()) == [model]


@pytest.mark.slow
def test_a_benchmark_compares_float_calibrated_and_quantised(
    detecting: Callable[..., Path], quantised: Callable[..., Path], tiny_data: Callable[[str], Path], tmp_path: Path
) -> None:
    models = f"float:{detecting(OBB, tmp_path / 'float', CALM)},aware:{quantised(OBB)}"
    result = benchmark(
        model=models, formats="pt,onnx,onnx-int8", data=str(tiny_data("obb")), imgsz=96, runs=3, rounds=1,
        warmup=0, out=str(tmp_path / "out"),
    )  # fmt: skip
    rows = {(r.model, r.format): r for r in result.rows}
    assert not [r.reason for r in rows.values() if r.reason]
    assert all(r.map50_95 is not None and r.total_ms for r in rows.values())
