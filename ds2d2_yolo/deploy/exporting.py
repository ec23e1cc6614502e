"""`export`: Ultralytics' export, then the check that it does not make."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ds2d2_yolo.bridge.data.security import refuse_code, safe_loading
from ds2d2_yolo.bridge.inference import export as ultra
from ds2d2_yolo.bridge.inference.backend_model import Cuts, Detector
from ds2d2_yolo.bridge.upstream.arguments import check_theirs
from ds2d2_yolo.bridge.upstream.devices import check_device
from ds2d2_yolo.deploy.images import Images, images_for
from ds2d2_yolo.deploy.matching import ModelOutputs, compare
from ds2d2_yolo.deploy.options import EXPORT_KEYS, ExportOptions
from ds2d2_yolo.deploy.parity import TOLERANCES, ParityReport
from ds2d2_yolo.deploy.tensorrt import next_step
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.utils.atomic_files import write_json

LEAST = 0.001  # scores below mean nothing


@dataclass(frozen=True)
class Exported:
    """An exported file and what its check found.

    Attributes:
        file (Path): The file or folder.
        megabytes (float): Its size in MB (1e6 bytes).
        seconds (float): How long the export took.
        parity (ParityReport | None): What the check found, None if there was none.
        unchecked (str | None): Why there was none.
        report (Path | None): The JSON file of the check.
    """

    file: Path
    megabytes: float
    seconds: float
    parity: ParityReport | None
    unchecked: str | None
    report: Path | None

    def __str__(self) -> str:
        """Return what was written, and the tables of the check."""
        head = f"{self.file} ({self.megabytes:.1f} MB, exported in {self.seconds:.0f} s)"
        if self.parity is None:
            return f"{head}\nnot checked: {self.unchecked}"
        return f"{head} against PyTorch in FP32: {self.parity}\n{self.report} has it as JSON"


def export(**keys: Any) -> Exported:
    """Export a checkpoint, run the file on real images beside PyTorch and compare what they find.

    Args:
        **keys (Any): See `ExportOptions`, and Ultralytics' export settings (`EXPORT_KEYS`).

    Returns:
        (Exported): The file and the comparison.

    Raises:
        BadUseError: If anything does not fit, before the export begins.
        DS2D2Error: If the export fails, if its check does (the table is printed, the files stay), or if this machine
            cannot build a TensorRT engine (the ONNX file is made, the message names the next step).

    Examples:
        >>> export(model="best.pt", format="onnx", imgsz=640, data="hit-uav.yaml")  # doctest: +SKIP
    """
    options = ExportOptions.of(keys, "export", EXPORT_KEYS)
    theirs = ExportOptions.split(keys)[1]
    loud = bool(theirs.pop("verbose", False))
    check_theirs({k: v for k, v in theirs.items() if k not in {"half", "int8", "end2end"}})
    with safe_loading(options.safe):
        if options.safe:
            for named in (theirs.get("data"), options.check_images):
                if named and (named is not options.check_images or str(named).endswith((".yaml", ".yml"))):
                    refuse_code(str(named))
        return _made(options, theirs, loud)


def _made(options: ExportOptions, theirs: dict[str, Any], loud: bool) -> Exported:
    """Export, check, and say what is wrong with the result."""
    checkpoint = ultra.open_checkpoint(options.model, "export", options.unfinished)
    lacks = ultra.engine_lacks() if options.format == "engine" else None
    format = "onnx" if lacks else options.format
    args = ultra.export_args(options.format, theirs, checkpoint)
    where = "0" if format == "engine" else "cpu"
    named = theirs.get("device")
    device = torch.device("cpu") if lacks else check_device(where if named in (None, "") else named)  # 0 is a GPU
    if lacks:  # trtexec takes an FP32 file and its own precision flag
        asked, args = args, ultra.export_args("onnx", _for_onnx(args), checkpoint)
    images = None
    if options.check:  # an image that cannot be read is found now, not after the export
        places = options.check_images, theirs.get("data"), checkpoint.data
        images = images_for(*places, max(args["imgsz"]), checkpoint.channels, options.check_limit)
    exported = _export(options, checkpoint, format, args, device, loud, images)
    if exported.parity is not None and exported.parity.failed:
        print(exported)
        raise DS2D2Error(f"{exported.file} fails its check against PyTorch: {'; '.join(exported.parity.wrong)}")
    if lacks:
        print(exported)
        step = next_step(exported.file, asked, checkpoint.channels)
        made = f"{exported.file} is made" + (
            "" if args["nms"] is None else " (leave nms= out for Ultralytics to run it)"
        )
        raise DS2D2Error(f"this machine lacks {lacks} for format=engine; {made}, next: {step}")
    return exported


def _for_onnx(args: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of an engine's export that its ONNX file takes."""
    return {k: v for k, v in args.items() if k not in {"quantize", "workspace", "device", "data", "fraction", "split"}}


def _export(
    options: ExportOptions, checkpoint: ultra.Checkpoint, format: str, args: Mapping[str, Any], device: torch.device,
    loud: bool, images: Images | None,
) -> Exported:  # fmt: skip
    """Export and check."""
    print(f"exporting {checkpoint.path} to {format} ...", flush=True)
    began = time.perf_counter()
    file = ultra.write_export(checkpoint, format, args, checkpoint.path.parent, loud)
    seconds = time.perf_counter() - began
    parity, why = None, "check=False"
    if options.check and images is None:
        why = f"the model takes {checkpoint.channels} channels: name images that have them with check_images="
    elif images is not None:
        try:
            with ultra.quiet(loud):
                half = args["quantize"] == 16 and format == "torchscript"
                found = Detector(file, checkpoint.task, device, half=half)
        except Exception as e:  # a runtime that is not on this machine fails in its own way
            why = f"{format} does not run on this machine: {(str(e).strip().splitlines() or [type(e).__name__])[0]}"
        else:
            parity = check(options, checkpoint, found, args, device, images)
    report = None
    if parity is not None:
        report = file.with_name(f"{file.name}.parity.json")
        write_json(
            report, {"file": str(file), "checkpoint": str(checkpoint.path), "args": dict(args), **parity.as_dict()}
        )
    return Exported(file, size_of(file), seconds, parity, None if parity else why, report)


def check(
    options: ExportOptions, checkpoint: ultra.Checkpoint, file: Detector, args: Mapping[str, Any],
    device: torch.device, images: Images,
) -> ParityReport:  # fmt: skip
    """Run an exported file and its checkpoint on the same images and compare what they find.

    Args:
        options (ExportOptions): What counts, and tolerances.
        checkpoint (Checkpoint): The checkpoint.
        file (Detector): The exported file, loaded.
        args (Mapping[str, Any]): What it was exported with.
        device (torch.device): Where both run.
        images (Images): What they look at.

    Returns:
        (ParityReport): What differs.
    """
    torch_side = Detector(checkpoint.path, checkpoint.task, device, end2end=file.end2end)
    precision = precision_of(file, args["quantize"])
    tolerance = TOLERANCES[precision].changed(
        iou=options.tol_iou, score=options.tol_score, angle=options.tol_angle, missing=options.tol_missing
    )
    least = _or(args.get("conf"), 0.25) if file.inside else 0.0  # NMS inside the file cut there
    conf = max(options.check_conf, least + tolerance.score if file.inside else 0.0)
    nms_iou = _or(args.get("iou"), 0.7)
    cuts = Cuts(
        kept=max(conf - tolerance.score, least, LEAST),
        raw=max(conf - 2 * tolerance.score, LEAST),
        iou=nms_iou,
        max_det=int(args.get("max_det") or 300),
        agnostic=bool(args.get("agnostic_nms")),
    )
    margins = tolerance.margins(nms_iou, cuts.max_det)
    shapes, compared = shapes_of(args, checkpoint.stride), []
    for shape in shapes:
        ours, its = (d.look(images.pixels, shape, args["batch"], cuts) for d in (torch_side, file))
        for a, b in zip(ours, its, strict=True):
            outputs = ModelOutputs.from_rows(*a, file.rotated), ModelOutputs.from_rows(*b, file.rotated)
            compared.append(compare(*outputs, conf, margins))
    size = " and ".join(f"{w} x {h}" for h, w in shapes)
    nms = "NMS inside the file" if file.inside else "end-to-end head" if file.end2end else "the same NMS for both"
    return ParityReport.of(
        compared, images.names * len(shapes), file.rotated, precision=precision, tolerance=tolerance, conf=conf,
        source=images.source,
        setting=f"{file.format} on {device.type} in {file.computes}, {size} px, batch {args['batch']}, {nms}",
    )  # fmt: skip


def _or(value: Any, default: float) -> float:
    """Return a number, 0 included, or the default if there is none."""
    return default if value is None else float(value)


def precision_of(file: Detector, quantize: Any) -> str:
    """Return whose tolerances a file is judged by: those of its own precision, or of a coarser one that it runs in."""
    scheme = file.quantize or quantize
    if scheme in {8, "w8a16", "w8a32"}:
        return "INT8"
    return "FP16" if scheme == 16 or file.computes in {"bfloat16", "float16", "bf16", "f16"} else "FP32"


def shapes_of(args: Mapping[str, Any], stride: int) -> list[tuple[int, int]]:
    """Return the input shapes to compare at: the exported one, and a narrower one where the file takes any."""
    height, width = args["imgsz"]
    narrow = max(round(0.75 * width / stride), 1) * stride
    return [(height, width)] + ([(height, narrow)] if args.get("dynamic") and narrow != width else [])


def size_of(file: Path) -> float:
    """Return the size of a file or folder in MB (1e6 bytes)."""
    files = [p for p in file.rglob("*") if p.is_file()] if file.is_dir() else [file]
    return sum(p.stat().st_size for p in files) / 1e6
