"""Exports that are really run, whole and spoilt."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from ultralytics.data import utils as data_utils
from ultralytics.nn.tasks import OBBModel
from ultralytics.utils import downloads

from ds2d2_yolo.bridge.data.images import read_image
from ds2d2_yolo.bridge.inference import export as exporter
from ds2d2_yolo.bridge.inference.backend_model import BackendModel
from ds2d2_yolo.deploy import export, exporting
from ds2d2_yolo.deploy.images import find_images, images_for, read_images
from ds2d2_yolo.deploy.options import ExportOptions
from ds2d2_yolo.deploy.tensorrt import next_step
from ds2d2_yolo.errors import BadUseError, DS2D2Error
from tests.helpers.data import write_bands, write_tiny_data
from tests.helpers.detecting import spread_out

OBB, UPRIGHT = "yolov8n-obb.yaml", "yolov8n.yaml"
CALM = 0.1  # an untrained network that INT8 and bfloat16 change as little as a trained one


@pytest.mark.parametrize(
    ("yaml", "strength", "keys", "expected_text"),
    [
        (UPRIGHT, 1.0, {"dynamic": True, "batch": 3}, "96 x 96 and 64 x 96 px, batch 3"),
        pytest.param(OBB, 0.25, {"nms": True}, "NMS inside the file", marks=pytest.mark.slow),
        (UPRIGHT, 1.0, {"nms": True, "conf": 0.4, "iou": 0.5}, "score 0.402 and more"),
        ("yolo26n-obb.yaml", 1.0, {"nms": False, "max_det": 100}, "end-to-end head"),
        pytest.param(OBB, 1.0, {"half": True}, "FP16 tolerances", marks=pytest.mark.slow),
        (UPRIGHT, 1.0, {"nms": True, "iou": 0, "conf": 0}, "NMS inside the file"),
        (UPRIGHT, CALM, {"int8": True}, "INT8 tolerances"),
        (UPRIGHT, CALM / 2, {"format": "openvino"}, "openvino on cpu"),
        pytest.param(OBB, CALM, {"format": "openvino"}, "openvino on cpu", marks=pytest.mark.slow),
        pytest.param(OBB, CALM, {"format": "openvino", "quantize": 8}, "INT8 tolerances", marks=pytest.mark.slow),
        pytest.param(UPRIGHT, CALM, {"format": "openvino", "quantize": 8}, "INT8", marks=pytest.mark.slow),
        pytest.param("yolov10n.yaml", 1.0, {"nms": False, "max_det": 100}, "end-to-end head", marks=pytest.mark.slow),
        pytest.param("yolo26n.yaml", 1.0, {"nms": None}, "the same NMS for both", marks=pytest.mark.slow),
        pytest.param(OBB, 1.0, {"format": "torchscript"}, "FP32 tolerances", marks=pytest.mark.slow),
    ],
)
def test_an_export_finds_what_pytorch_finds(
    yaml: str, strength: float, keys: dict[str, Any], expected_text: str, detecting: Callable[..., Path],
    tiny_data: Callable[[str], Path], tmp_path: Path,
) -> None:  # fmt: skip
    if keys.get("format") == "openvino":
        pytest.importorskip("openvino")
    model = detecting(yaml, tmp_path, strength)
    data = {"data": str(tiny_data("obb" if "obb" in yaml else "detect"))} if {"quantize", "int8"} & set(keys) else {}
    exported = export(model=str(model), **{"format": "onnx", **keys, **data})
    assert exported.parity is not None
    assert exported.parity.holds
    assert exported.parity.matched > 60
    assert expected_text in str(exported)
    assert exported.file.parent == tmp_path
    assert exported.report is not None
    assert json.loads(exported.report.read_text(encoding="utf-8"))["matched"] == exported.parity.matched
    assert not list(tmp_path.glob(".*"))


# Spoilt files ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def intact_export(detecting: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """A checkpoint, its ONNX file and what it was exported with, made once for each precision."""
    exports: dict[Any, Any] = {}

    def get(quantize: int | None) -> Any:
        if quantize not in exports:
            folder = tmp_path_factory.mktemp("intact")
            checkpoint = exporter.open_checkpoint(str(detecting(OBB, folder, CALM if quantize else 1.0)), "export")
            keys = {"quantize": 8, "data": checkpoint.data} if quantize else {}
            args = exporter.export_args("onnx", keys, checkpoint)
            exports[quantize] = checkpoint, args, exporter.write_export(checkpoint, "onnx", args, folder)
        return exports[quantize]

    return get


def checked(intact: Any, file: Path, **keys: Any) -> Any:
    checkpoint, args, _ = intact
    images = read_images(*find_images(None, None, checkpoint.data, 96), 4)
    cpu = torch.device("cpu")
    return exporting.check(ExportOptions(**keys), checkpoint, BackendModel(file, "obb", cpu), args, cpu, images)


def spoil(source: Path, target: Path, change: Callable[[str, np.ndarray], np.ndarray | None]) -> Path:
    """Write an ONNX file with changed weights."""
    import onnx
    from onnx import numpy_helper

    model, changed = onnx.load(source), 0
    for weight in model.graph.initializer:
        new = change(weight.name, numpy_helper.to_array(weight).copy())
        if new is not None:
            changed += 1
            weight.CopyFrom(numpy_helper.from_array(new, weight.name))
    assert changed
    onnx.save(model, target)
    return target


def first_layer(name: str, value: np.ndarray) -> np.ndarray | None:
    return value * np.float32(1.05) if name.endswith("model.0.conv.weight") else None


def second_class(name: str, value: np.ndarray) -> np.ndarray | None:
    """Silence the second class on all levels."""
    if ".cv3." not in name or not name.endswith(".2.bias"):
        return None
    value[1] = -20
    return value


def weights(name: str, value: np.ndarray) -> np.ndarray | None:
    """Mix up what one quantized layer of the neck weighs."""
    return value[::-1] if name.endswith("model.15.cv1.conv.weight_quantized") else None


def angles(name: str, value: np.ndarray) -> np.ndarray | None:
    return value + np.float32(0.2) if ".cv4." in name and name.endswith(".2.bias") else None


def scales(name: str, value: np.ndarray) -> np.ndarray | None:
    return value * np.float32(1.5) if name.endswith("model.2.cv1.conv.weight_scale") else None


@pytest.mark.parametrize(
    ("quantize", "damage", "pattern"),
    [
        (None, first_layer, "one-sided|1 - IoU|score"),
        (None, second_class, "only in PyTorch"),
        (None, angles, "angle"),
        pytest.param(8, weights, "one-sided|1 - IoU|score", marks=pytest.mark.slow),
        pytest.param(8, scales, "one-sided|1 - IoU|score", marks=pytest.mark.slow),
    ],
)
def test_a_spoilt_file_fails(
    quantize: int | None, damage: Callable[..., Any], pattern: str, intact_export: Callable[..., Any], tmp_path: Path
) -> None:
    import re

    intact = intact_export(quantize)
    assert checked(intact, intact[2]).holds
    parity = checked(intact, spoil(intact[2], tmp_path / "best.onnx", damage))
    assert not parity.holds
    assert re.search(pattern, "; ".join(parity.wrong))


def test_tolerances_can_be_given(intact_export: Callable[..., Any], tmp_path: Path) -> None:
    spoilt = spoil(intact_export(None)[2], tmp_path / "best.onnx", angles)
    wide = {"tol_iou": 0.5, "tol_angle": 2.0, "tol_missing": 0.5, "tol_score": 0.1}
    assert checked(intact_export(None), spoilt, **wide).holds


def test_a_failed_check_fails_the_command_and_keeps_the_files(
    detecting: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write = exporter.write_export

    def spoiling(*arguments: Any, **keys: Any) -> Path:
        file = write(*arguments, **keys)
        return spoil(file, file, angles)

    monkeypatch.setattr(exporter, "write_export", spoiling)
    with pytest.raises(DS2D2Error, match=r"best\.onnx fails its check against PyTorch: ") as caught:
        export(model=str(detecting(OBB, tmp_path)), format="onnx")
    assert caught.value.status == 1
    assert len(str(caught.value).splitlines()) == 1
    assert "THE CHECK FAILED" in capsys.readouterr().out
    report = json.loads((tmp_path / "best.onnx.parity.json").read_text(encoding="utf-8"))
    assert (tmp_path / "best.onnx").is_file()
    assert not report["holds"]


@pytest.mark.parametrize(
    ("precision", "device", "overflows", "hinted"),
    [
        ("INT8", "cpu", True, True),
        ("INT8", "cpu", False, False),
        ("FP32", "cpu", True, False),
        ("INT8", "cuda", True, False),
    ],
)
def test_a_cpu_whose_int8_overflows_is_named(
    precision: str, device: str, overflows: bool, hinted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "int8_overflows", lambda: overflows)
    parity: Any = SimpleNamespace(precision=precision, wrong=["12 detections only in PyTorch"])
    problems = exporting._problems(parity, torch.device(device))
    assert problems == ("12 detections only in PyTorch", *([exporting.OVERFLOW_HINT] if hinted else []))


def test_a_check_without_detections_is_inconclusive_and_no_failure(
    detecting: Callable[..., Path], tmp_path: Path
) -> None:
    exported = export(model=str(detecting(OBB, tmp_path, CALM)), format="onnx", check_conf=0.99)
    assert exported.parity is not None
    assert exported.parity.inconclusive
    assert "the check is inconclusive: no detections of score 0.99 and more" in str(exported)
    report = json.loads((tmp_path / "best.onnx.parity.json").read_text(encoding="utf-8"))
    assert (report["holds"], report["inconclusive"]) == (False, True)


# TensorRT --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(exporter.missing_for_engine() is None, reason="this machine builds engines")
def test_without_a_gpu_the_onnx_file_is_made_and_the_next_step_printed(
    detecting: Callable[..., Path], tmp_path: Path
) -> None:
    keys = {"half": True, "dynamic": True, "batch": 2, "workspace": 4}
    with pytest.raises(DS2D2Error, match="this machine lacks an NVIDIA GPU") as caught:
        export(model=str(detecting(OBB, tmp_path)), format="engine", check_limit=2, **keys)
    assert caught.value.status == 1
    assert str(caught.value).endswith(
        f"next: trtexec --onnx={tmp_path}/best.onnx --saveEngine={tmp_path}/best.engine --fp16 "
        "--minShapes=images:1x3x32x32 --optShapes=images:2x3x96x96 --maxShapes=images:2x3x192x192 "
        "--memPoolSize=workspace:4096"
    )
    assert len(str(caught.value).splitlines()) == 1
    assert (tmp_path / "best.onnx").is_file()


def test_the_next_step_to_an_engine() -> None:
    args = {"imgsz": [320, 640], "batch": 1, "quantize": None}
    assert next_step(Path("a b.onnx"), args, 3) == "trtexec --onnx='a b.onnx' --saveEngine='a b.engine'"
    assert "data=d.yaml there for its calibration" in next_step(
        Path("a.onnx"), {**args, "quantize": 8, "data": "d.yaml"}, 3
    )


@pytest.mark.gpu
@pytest.mark.parametrize("yaml", [UPRIGHT, OBB])
def test_an_engine_finds_what_pytorch_finds(yaml: str, detecting: Callable[..., Path], tmp_path: Path) -> None:
    pytest.importorskip("tensorrt")
    exported = export(model=str(detecting(yaml, tmp_path, 0.25)), format="engine", half=True)
    assert exported.parity is not None
    assert exported.parity.holds


# What it refuses -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"format": "onxx"}, "did you mean 'onnx'"),
        ({"fromat": "onnx"}, "'fromat' (did you mean 'format'?)"),
        ({"int8": True}, "INT8 needs images to calibrate on: name a data YAML, data=..."),
        ({"format": "ncnn", "dynamic": True}, "argument 'dynamic' is not supported for format='ncnn'"),
        ({"quantize": 7}, "'quantize=7' is invalid"),
        ({"check_images": "nowhere"}, "check_images=nowhere holds no images"),
        ({"data": "nowhere.yaml"}, "nowhere.yaml"),
        ({"device": "cuda:9"}, "device=cuda:9 is no device of this machine"),
        ({"device": "vulkan"}, "device=vulkan is no device of torch"),
        ({"batch": 0.5}, "batch=0.5 must be a whole number of at least 1"),
        ({"batch": -1}, "batch=-1 must be a whole number of at least 1"),
    ],
)
def test_bad_use_is_one_line_and_leaves_nothing(
    keys: dict[str, Any], message: str, detecting: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(BadUseError) as caught:
        export(model=str(detecting(OBB, tmp_path)), **keys)
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["best.pt"]


def test_the_check_runs_where_the_file_was_made(
    detecting: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse_device(device: Any) -> torch.device:
        raise BadUseError(f"asked for {device!r}")

    monkeypatch.setattr(exporting, "check_device", refuse_device)
    model = str(detecting(OBB, tmp_path))
    for device, device_text in ((0, "0"), ("0", "'0'"), (None, "'cpu'"), ("", "'cpu'")):
        with pytest.raises(BadUseError, match=f"asked for {device_text}$"):
            export(model=model, format="torchscript", device=device)


def test_an_image_that_cannot_be_read_is_found_before_the_export(
    detecting: Callable[..., Path], tiny_data: Callable[[str], Path], tmp_path: Path
) -> None:
    gone = tmp_path / "data" / "images" / "gone.png"
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "val.txt").write_text(f"{gone}\n", encoding="utf-8")
    data = tmp_path / "data" / "data.yaml"
    data.write_text(f"path: {data.parent}\ntrain: val.txt\nval: val.txt\nnames: [red, green]\n", encoding="utf-8")
    model = detecting(OBB, tmp_path / "m")
    with pytest.raises(BadUseError, match=r"gone.png cannot be read as an image, of the validation images of"):
        export(model=str(model), format="onnx", check_images=str(data))
    assert [p.name for p in model.parent.iterdir()] == ["best.pt"]
    scenes = images_for(None, None, str(data), 96, 3, 2)  # what the checkpoint names was not asked for
    assert scenes is not None
    assert scenes.source == "2 built-in scenes"
    assert images_for(None, None, None, 96, 4, 2) is None


def test_an_export_of_four_channels_is_checked_on_images_that_have_them(tmp_path: Path) -> None:
    data = write_bands(tmp_path / "bands", 4)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = OBBModel("yolov8n-obb.yaml", nc=2, ch=4, verbose=False)
    model.names, model.task = {0: "red", 1: "green"}, "obb"
    images = [read_image(p, 4) for p in sorted((data.parent / "images" / "val").iterdir())]
    spread_out(model, torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2).astype(np.float32) / 255), 1.0)
    (tmp_path / "m").mkdir()
    file = tmp_path / "m" / "best.pt"
    torch.save({"model": model, "train_args": {"task": "obb", "imgsz": 96}}, file)
    exported = export(model=str(file), format="onnx", check_images=str(data))
    assert exported.parity is not None
    assert exported.parity.holds
    assert exported.parity.matched > 60
    assert "the model takes 4 channels: name images" in str(export(model=str(file), format="onnx"))
    with pytest.raises(BadUseError, match="has 3 channels instead of 4"):
        export(model=str(file), format="onnx", check_images=str(write_tiny_data(tmp_path / "tiny", "obb")))


def test_a_format_that_does_not_run_here_is_not_checked(
    detecting: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: Any, **__: Any) -> None:
        raise ModuleNotFoundError("No module named 'runtime'")

    monkeypatch.setattr(exporting, "BackendModel", missing)
    exported = export(model=str(detecting(OBB, tmp_path)), format="onnx")
    assert "not checked: onnx does not run on this machine: No module named 'runtime'" in str(exported)
    assert exported.file.is_file()


def test_data_that_a_checkpoint_names_are_neither_fetched_nor_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    download_calls: list[Any] = []
    monkeypatch.setattr(downloads, "safe_download", lambda *args, **keys: download_calls.append((args, keys)))
    monkeypatch.setattr(data_utils, "safe_download", lambda *args, **keys: download_calls.append((args, keys)))
    archive = tmp_path / "archive.zip"
    with zipfile.ZipFile(archive, "w") as zip_file:
        zip_file.writestr("data.yaml", "train: images\nval: images\nnames: [a]\n")
    disguised = shutil.copy(archive, tmp_path / "archive.yaml")
    addresses = ["https://example.org/x.zip", "https://example.org/x.yaml", "gs://x/y.zip", "ul://user/datasets/x"]
    for source in (*addresses, str(archive), str(disguised), str(tmp_path)):
        assert find_images(None, None, source, 96) == ("built-in scenes", 96), source
    assert not download_calls


def test_images_are_those_asked_for_then_the_datas_then_the_checkpoints_then_scenes(
    tiny_data: Callable[[str], Path], tmp_path: Path
) -> None:
    data, other = str(tiny_data("obb")), str(tiny_data("detect"))
    folder = str(Path(data).parent / "images" / "train")
    assert find_images(folder, other, other, 96)[0] == f"images of {folder}"
    assert find_images(data, other, other, 96)[0] == f"validation images of {data}"
    assert find_images(None, data, other, 96)[0] == f"validation images of {data}"
    source, files = find_images(None, None, data, 96)
    images = read_images(source, files, 3)
    assert (images.source, len(images.pixels)) == (f"3 of 8 validation images of {data}", 3)
    assert find_images(None, None, "gone.yaml", 96) == ("built-in scenes", 96)
    assert find_images(None, None, "", 96) == ("built-in scenes", 96)
    drawn = read_images("built-in scenes", 98, 2)
    assert [x.shape for x in drawn.pixels] == [(100, 100, 3)] * 2
