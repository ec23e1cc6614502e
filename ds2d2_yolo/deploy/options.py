"""The options of `export` and `benchmark`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ds2d2_yolo.config import checks as ok
from ds2d2_yolo.config.options import Options, option

# export formats of Ultralytics 8.4.190, in its order
FORMATS = (
    "torchscript", "onnx", "openvino", "engine", "coreml", "coreai", "saved_model", "pb", "edgetpu", "litert", "paddle",
    "mnn", "ncnn", "imx", "rknn", "executorch", "axelera", "deepx", "qnn", "hailo", "ascend", "xilinx",
)  # fmt: skip
# settings that pass through to Ultralytics' export; half, int8 and end2end are its older names of quantize and nms
EXPORT_KEYS = (
    "imgsz", "quantize", "half", "int8", "dynamic", "simplify", "nms", "end2end", "opset", "batch", "device",
    "workspace", "optimize", "data", "fraction", "split", "conf", "iou", "max_det", "agnostic_nms", "name", "verbose",
)  # fmt: skip
PRECISIONS = ("fp16", "int8")

EXPORT_NOTES = """\
Settings of Ultralytics' export pass through: https://docs.ultralytics.com/modes/export. Precision is quantize=16 or 8
(INT8 needs data= for its calibration); nms=True puts NMS into the file, nms=False takes the end-to-end head. A student
that trained with quantize=8 is exported to INT8 with its own ranges, as onnx, openvino or engine, and is compared with
PyTorch with the same fake quantisation.

The exported file is then run on real images beside PyTorch, through the same letterbox and NMS, and their detections
are matched one to one within a class, the largest IoU first (rotated IoU for oriented boxes). A failed check ends with
status 1 and keeps the files. The images are those of check_images=, otherwise the validation images of data=, otherwise
those of the data set that the checkpoint names, otherwise built-in scenes, which have three channels. A format that
cannot run on this machine is 'not checked', with the reason.

Tolerances: 1 - IoU, score, angle (radians, modulo pi; squares modulo pi / 2) and share of one-sided detections.
  FP32  0.01  0.002  0.01  0      judged by the largest difference
  FP16  0.1   0.05   0.1   0.02   judged by the 99th percentile
  INT8  0.3   0.15   0.2   0.1    judged by the 90th percentile
If a runtime computes more coarsely than the file was written, the tolerances of the coarser precision apply: OpenVINO
chooses bfloat16 on some processors, and the table names it. A detection near the confidence threshold is no difference:
its partner is searched down to check_conf less the tolerance of the score (in an image with max_det detections, from
the lowest of them). A detection that NMS dropped on one side only, or that has another class there, is a near tie,
counted separately, if that side's output before NMS holds its box, class and score within the tolerances, or, with
nms=True, if PyTorch's does and a detection of that side ties with it.

format=engine needs an NVIDIA GPU and the package tensorrt. Elsewhere the ONNX file is made and checked, the trtexec
command is printed, and the status is 1. An engine of trtexec lacks the header in which Ultralytics keeps task, names,
image size and stride: pass them, YOLO('best.engine', task='obb').predict(..., imgsz=..., data='names.yaml'). The
engine does not record NMS inside the file either: build it from an ONNX file exported without nms=. This way is
untested."""


def _tolerance(about: str) -> Any:
    """Declare a tolerance; the default is that of the precision."""
    return option(None, ok.optional(ok.number(0)), f"{about}; the default is that of the precision")


@dataclass(frozen=True)
class ExportOptions(Options):
    """Options of `export` besides Ultralytics' (`EXPORT_KEYS`).

    Attributes:
        model (str | None): Trained checkpoint (.pt), needed.
        format (str): Format of the file.
        check (bool): Whether the exported file is compared with PyTorch.
        check_images (str | None): Images to compare on: an image, a folder or a data YAML (validation split).
        check_limit (int): Number of images, chosen evenly.
        check_conf (float): Score from which a detection counts.
        tol_iou (float | None): Largest 1 - IoU of a pair.
        tol_score (float | None): Largest difference of a pair's scores.
        tol_angle (float | None): Largest difference of a pair's angles in radians.
        tol_missing (float | None): Largest share of one-sided detections among all.
        unfinished (bool): Whether the checkpoint of an unfinished training is accepted.
        safe (bool): Whether a checkpoint or a data set that could run code is refused.

    Raises:
        BadUseError: If a value is out of its range.
    """

    model: str | None = option(None, ok.optional(ok.path), "trained checkpoint (.pt), needed")
    format: str = option("onnx", ok.one_of(*FORMATS), "format of the file")
    check: bool = option(True, ok.flag, "compare the exported file with PyTorch on real images")
    check_images: str | None = option(None, ok.optional(ok.path), "image, folder or data YAML to compare on")
    check_limit: int = option(32, ok.integer(1), "number of images to compare on, chosen evenly")
    check_conf: float = option(0.25, ok.number(0.01, 0.99), "score from which a detection counts")
    tol_iou: float | None = _tolerance("largest 1 - IoU of a pair")
    tol_score: float | None = _tolerance("largest difference of a pair's scores")
    tol_angle: float | None = _tolerance("largest difference of a pair's angles in radians")
    tol_missing: float | None = _tolerance("largest share of one-sided detections")
    unfinished: bool = option(False, ok.flag, "accept the checkpoint of an unfinished training")
    safe: bool = option(False, ok.flag, ok.SAFE)


def _check_names(value: Any) -> str | None:
    """Check for names in a list or in one text with commas."""
    names = value.split(",") if isinstance(value, str) else value
    valid = isinstance(names, (list, tuple)) and names and all(isinstance(x, str) and x.strip() for x in names)
    return None if valid else "must be names with commas between, such as a.pt,b.pt"


def split_names(value: str | list[str]) -> list[str]:
    """Return names of an option as a list.

    Args:
        value (str | list[str]): A list, or one text with commas.

    Returns:
        (list[str]): The names, without spaces around them.
    """
    return [x.strip() for x in (value.split(",") if isinstance(value, str) else value)]


@dataclass(frozen=True)
class BenchmarkOptions(Options):
    """Options of `benchmark`.

    Attributes:
        model (str | list[str] | None): Checkpoints with commas between, each a path or name:path; needed.
        formats (str | list[str]): Formats with commas between, which may be 'pt'; a suffix '-fp16' or '-int8' is the
            precision.
        data (str | None): Data YAML, needed; mAP is measured on its validation split.
        imgsz (int): Side of the images in pixels.
        runs (int): Timed runs of a model and format, over all rounds.
        rounds (int): Turns of each model and format, each in a separate process.
        warmup (int): Runs before the timed ones in each turn.
        batch (int): Images in a batch of the throughput; latency is that of one image.
        nms (bool | None): As in `export`.
        device (str | int | None): Device as Ultralytics takes it.
        fraction (float): Share of the validation images that calibrates INT8.
        out (str): Folder of the results; the same command there measures only what is missing.
        safe (bool): Whether checkpoints or a data set that could run code are refused, in all processes.
        verbose (bool): Whether the progress is shown.

    Raises:
        BadUseError: If a value is out of its range.
    """

    model: str | list[str] | None = option(
        None,
        ok.optional(ok.Check("a.pt,b.pt | name:a.pt,...", _check_names)),
        "checkpoints, needed; ratios to the first",
    )
    formats: str | list[str] = option(
        "pt,onnx,openvino",
        ok.Check("pt,onnx,openvino-int8,...", _check_names),
        "formats, each with -fp16 or -int8 if wanted",
    )
    data: str | None = option(None, ok.optional(ok.path), "data YAML, needed; mAP is measured on its validation split")
    imgsz: int = option(640, ok.integer(32), "side of the images in pixels")
    runs: int = option(60, ok.integer(3), "timed runs of each model and format, over all rounds")
    rounds: int = option(3, ok.integer(1), "turns of each model and format, against drift of the machine")
    warmup: int = option(5, ok.integer(0), "runs before the timed ones of each turn")
    batch: int = option(1, ok.integer(1), "images in a batch of the throughput")
    nms: bool | None = option(None, ok.optional(ok.flag), "NMS inside the file, or False: the end-to-end head")
    device: str | int | None = option("cpu", ok.anything, "device as Ultralytics takes it")
    fraction: float = option(1.0, ok.number(0, 1, above=True), "share of the validation images that calibrate INT8")
    out: str = option("runs/benchmark", ok.path, "folder of the results; the same command there continues")
    safe: bool = option(False, ok.flag, ok.SAFE)
    verbose: bool = option(True, ok.flag, ok.VERBOSE)

    def _contradictions(self) -> list[str]:
        """Refuse unknown formats, repeated formats and fewer runs than rounds."""
        problems = []
        known = ok.one_of("pt", *FORMATS)
        for name in split_names(self.formats):
            base, dash, precision = name.partition("-")
            if problem := known(base) or (ok.one_of(*PRECISIONS)(precision) if dash else None):
                problems.append(f"formats={name} {problem}")
        if "pt-int8" in split_names(self.formats):
            problems.append("formats=pt-int8: PyTorch runs in FP32 or FP16")
        if len(set(split_names(self.formats))) < len(split_names(self.formats)):
            problems.append(f"formats={self.formats} names a format twice")
        if self.runs < self.rounds:
            problems.append(f"runs={self.runs} are fewer than rounds={self.rounds}")
        return problems
