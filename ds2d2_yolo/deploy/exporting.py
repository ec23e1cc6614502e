"""`export`: Ultralytics' export, followed by a comparison with PyTorch that Ultralytics does not make."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ds2d2_yolo.bridge.data.security import refuse_code_in_data, safe_loading
from ds2d2_yolo.bridge.inference import export as exporter
from ds2d2_yolo.bridge.inference.backend_model import BackendModel, NMSSettings
from ds2d2_yolo.bridge.upstream.arguments import validate_ultralytics_args
from ds2d2_yolo.bridge.upstream.devices import check_device
from ds2d2_yolo.bridge.upstream.hardware import int8_overflows
from ds2d2_yolo.bridge.upstream.logging import warnings_only
from ds2d2_yolo.bridge.upstream.messages import first_line
from ds2d2_yolo.deploy.images import CheckImages, images_for
from ds2d2_yolo.deploy.matching import ModelOutputs, compare
from ds2d2_yolo.deploy.options import EXPORT_KEYS, ExportOptions
from ds2d2_yolo.deploy.parity import TOLERANCES, ParityReport, Tolerance
from ds2d2_yolo.deploy.postprocess_file import write_postprocess
from ds2d2_yolo.deploy.tensorrt import next_step
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.utils.atomic_files import write_json

MIN_SCORE = 0.001  # lower scores are noise
OVERFLOW_HINT = (
    "INT8 sums overflow on this CPU, which has no VNNI: repeat the export on the machine that the file is for"
)
ENGINE_KEYS = frozenset({"quantize", "workspace", "device", "data", "fraction", "split"})  # its ONNX file has none


@dataclass(frozen=True)
class Exported:
    """An exported file and the result of its check.

    Attributes:
        file (Path): The file or folder.
        megabytes (float): Its size in MB (1e6 bytes).
        seconds (float): Duration of the export.
        parity (ParityReport | None): Result of the check, None if it was not checked.
        unchecked (str | None): Reason why it was not checked.
        report (Path | None): The JSON file of the check.
        postprocess (Path | None): NumPy code that reads the file's output, None where NMS is inside the file.
        reference (str): What the file was compared with.
    """

    file: Path
    megabytes: float
    seconds: float
    parity: ParityReport | None
    unchecked: str | None
    report: Path | None
    postprocess: Path | None
    reference: str = "PyTorch in FP32"

    def __str__(self) -> str:
        """Return the file and the tables of the check."""
        head = f"{self.file} ({self.megabytes:.1f} MB, exported in {self.seconds:.0f} s)"
        if self.postprocess is not None:
            head = f"{self.postprocess} decodes it without PyTorch\n{head}"
        if self.parity is None:
            return f"{head}\nnot checked: {self.unchecked}"
        return f"{head} against {self.reference}: {self.parity}\n{self.report} has it as JSON"


def export(**keys: Any) -> Exported:
    """Export a checkpoint, run the file and PyTorch on the same images, and compare their detections.

    Args:
        **keys (Any): See `ExportOptions`, and Ultralytics' export settings (`EXPORT_KEYS`).

    Returns:
        (Exported): The file and the comparison.

    Raises:
        BadUseError: If anything does not fit, before the export begins.
        DS2D2Error: If the export or its check fails (after a failed check the table is printed and the files stay), or
            if this machine cannot build a TensorRT engine (the ONNX file is written, the message names the next step).

    Examples:
        >>> export(model="best.pt", format="onnx", imgsz=640, data="hit-uav.yaml")  # doctest: +SKIP
    """
    options = ExportOptions.of(keys, "export", EXPORT_KEYS)
    ultralytics_args = ExportOptions.split(keys)[1]
    verbose = bool(ultralytics_args.pop("verbose", False))
    validate_ultralytics_args({k: v for k, v in ultralytics_args.items() if k not in {"half", "int8", "end2end"}})
    with safe_loading(options.safe):
        if options.safe:
            _refuse_code(ultralytics_args.get("data"), options.check_images)
        return _export_or_explain(options, ultralytics_args, verbose)


def _refuse_code(data: Any, check_images: str | None) -> None:
    """Refuse data YAMLs that could run code; `check_images` can also be an image or a folder."""
    if data:
        refuse_code_in_data(str(data))
    if check_images and check_images.endswith((".yaml", ".yml")):
        refuse_code_in_data(check_images)


def _export_or_explain(options: ExportOptions, ultralytics_args: dict[str, Any], verbose: bool) -> Exported:
    """Export and check; raise if the check fails or an engine cannot be built here."""
    checkpoint = exporter.open_checkpoint(options.model, "export", options.unfinished)
    missing = exporter.missing_for_engine() if options.format == "engine" else None
    format = "onnx" if missing else options.format
    args = exporter.export_args(options.format, ultralytics_args, checkpoint)
    device = torch.device("cpu") if missing else _device_of(format, ultralytics_args.get("device"))
    engine_args = args
    if missing:  # trtexec takes an FP32 file and its own precision flag
        onnx_args = {k: v for k, v in args.items() if k not in ENGINE_KEYS}
        args = exporter.export_args("onnx", onnx_args, checkpoint)
    images = None
    if options.check:  # an unreadable image fails before the export, not after it
        sources = options.check_images, ultralytics_args.get("data"), checkpoint.data
        images = images_for(*sources, max(args["imgsz"]), checkpoint.channels, options.check_limit)
    exported = _export(options, checkpoint, format, args, device, verbose, images)
    if exported.parity is not None and exported.parity.failed:
        print(exported)
        problems = "; ".join(_problems(exported.parity, device))
        raise DS2D2Error(f"{exported.file} fails its check against PyTorch: {problems}")
    if missing:
        print(exported)
        step = next_step(exported.file, engine_args, checkpoint.channels, checkpoint.quantised)
        hint = "" if args["nms"] is None else " (leave nms= out for Ultralytics to run it)"
        raise DS2D2Error(f"this machine lacks {missing} for format=engine; {exported.file} is made{hint}, next: {step}")
    return exported


def _problems(parity: ParityReport, device: torch.device) -> tuple[str, ...]:
    """Return what is wrong with an exported file, and a hint where this machine's CPU may be the reason."""
    overflows = parity.precision == "INT8" and device.type == "cpu" and int8_overflows()
    return (*parity.wrong, OVERFLOW_HINT) if overflows else tuple(parity.wrong)


def _device_of(format: str, device: Any) -> torch.device:
    """Return the device of an export: `device=`, otherwise the first GPU for engines and the CPU for other formats."""
    default = "0" if format == "engine" else "cpu"
    return check_device(default if device in (None, "") else device)  # device=0 is a GPU, not the default


def _export(
    options: ExportOptions, checkpoint: exporter.Checkpoint, format: str, args: Mapping[str, Any],
    device: torch.device, verbose: bool, images: CheckImages | None,
) -> Exported:  # fmt: skip
    """Export and check."""
    print(f"exporting {checkpoint.path} to {format} ...", flush=True)
    start = time.perf_counter()
    file = exporter.write_export(checkpoint, format, args, checkpoint.path.parent, verbose)
    seconds = time.perf_counter() - start
    postprocess = write_postprocess(file, checkpoint, format, args)
    parity, unchecked = None, "check=False"
    if options.check and images is None:
        unchecked = f"the model takes {checkpoint.channels} channels: name images that have them with check_images="
    elif images is not None:
        try:
            with warnings_only(verbose):
                half = args["quantize"] == 16 and format == "torchscript"
                model = BackendModel(file, checkpoint.task, device, half=half)
        except Exception as e:  # a runtime that is not on this machine fails in its own way
            unchecked = f"{format} does not run on this machine: {first_line(e)}"
        else:
            parity = check(options, checkpoint, model, args, device, images)
    if parity is None:
        return Exported(file, size_mb(file), seconds, None, unchecked, None, postprocess)
    report = file.with_name(f"{file.name}.parity.json")
    write_json(report, {"file": str(file), "checkpoint": str(checkpoint.path), "args": dict(args), **parity.as_dict()})
    reference = "PyTorch with fake quantisation" if checkpoint.quantised else Exported.reference
    return Exported(file, size_mb(file), seconds, parity, None, report, postprocess, reference)


def check(
    options: ExportOptions, checkpoint: exporter.Checkpoint, file: BackendModel, args: Mapping[str, Any],
    device: torch.device, images: CheckImages,
) -> ParityReport:  # fmt: skip
    """Run an exported file and its checkpoint on the same images and compare their detections.

    Args:
        options (ExportOptions): Score threshold and tolerances.
        checkpoint (Checkpoint): The checkpoint.
        file (BackendModel): The exported file, loaded.
        args (Mapping[str, Any]): Settings of the export.
        device (torch.device): Device of both.
        images (CheckImages): The images.

    Returns:
        (ParityReport): The differences.
    """
    reference = BackendModel(checkpoint.path, checkpoint.task, device, end2end=file.end2end)
    precision = precision_of(file, args["quantize"])
    tolerance = TOLERANCES[precision].changed(
        iou=options.tol_iou, score=options.tol_score, angle=options.tol_angle, missing=options.tol_missing
    )
    conf, nms = _nms_of(options, file, args, tolerance)
    margins = tolerance.margins(nms.iou, nms.max_det)
    shapes, compared = shapes_of(args, checkpoint.stride), []
    for shape in shapes:
        sides = (model.detect(images.pixels, shape, args["batch"], nms) for model in (reference, file))
        for (detections, candidates), (file_detections, file_candidates) in zip(*sides, strict=True):
            expected = ModelOutputs.from_rows(detections, candidates, file.rotated)
            actual = ModelOutputs.from_rows(file_detections, file_candidates, file.rotated)
            compared.append(compare(expected, actual, conf, margins))
    size = " and ".join(f"{w} x {h}" for h, w in shapes)
    head = "NMS inside the file" if file.nms_inside else "end-to-end head" if file.end2end else "the same NMS for both"
    return ParityReport.of(
        compared, images.names * len(shapes), file.rotated, precision=precision, tolerance=tolerance, conf=conf,
        source=images.source,
        setting=f"{file.format} on {device.type} in {file.runtime_precision}, {size} px, batch {args['batch']}, {head}",
    )  # fmt: skip


def _nms_of(
    options: ExportOptions, file: BackendModel, args: Mapping[str, Any], tolerance: Tolerance
) -> tuple[float, NMSSettings]:
    """Return the score from which detections are compared, and the thresholds of NMS.

    Detections below that score are kept as partners of those above it, as far as the tolerance reaches.
    """
    inside_conf = _or(args.get("conf"), 0.25) if file.nms_inside else 0.0  # the file drops lower scores itself
    conf = max(options.check_conf, inside_conf + tolerance.score if file.nms_inside else 0.0)
    return conf, NMSSettings(
        conf=max(conf - tolerance.score, inside_conf, MIN_SCORE),
        candidate_conf=max(conf - 2 * tolerance.score, MIN_SCORE),
        iou=_or(args.get("iou"), 0.7),
        max_det=int(args.get("max_det") or 300),
        agnostic=bool(args.get("agnostic_nms")),
    )


def _or(value: Any, default: float) -> float:
    """Return a number, which may be 0, or the default if it is None."""
    return default if value is None else float(value)


def precision_of(file: BackendModel, quantize: Any) -> str:
    """Return the precision whose tolerances apply: that of the file, or a coarser one that its runtime computes in.

    Args:
        file (BackendModel): The exported file, loaded.
        quantize (Any): Ultralytics' `quantize` of the export, for a file that does not hold it.

    Returns:
        (str): 'FP32', 'FP16' or 'INT8'.
    """
    scheme = file.quantize or quantize
    if scheme in {8, "w8a16", "w8a32"}:
        return "INT8"
    half_types = {"bfloat16", "float16", "bf16", "f16"}
    return "FP16" if scheme == 16 or file.runtime_precision in half_types else "FP32"


def shapes_of(args: Mapping[str, Any], stride: int) -> list[tuple[int, int]]:
    """Return the input shapes to compare at.

    Args:
        args (Mapping[str, Any]): Settings of the export.
        stride (int): Largest stride of the model.

    Returns:
        (list[tuple[int, int]]): Height and width in pixels: the exported shape, and a narrower one with `dynamic=True`.
    """
    height, width = args["imgsz"]
    narrow = max(round(0.75 * width / stride), 1) * stride
    return [(height, width)] + ([(height, narrow)] if args.get("dynamic") and narrow != width else [])


def size_mb(path: Path) -> float:
    """Return the size of a file or folder.

    Args:
        path (Path): File or folder.

    Returns:
        (float): In MB (1e6 bytes).
    """
    files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
    return sum(p.stat().st_size for p in files) / 1e6
