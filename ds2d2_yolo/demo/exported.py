"""The ONNX file of the demonstration's student, compared with PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ds2d2_yolo.demo.picture import detect
from ds2d2_yolo.demo.plan import DemoPlan
from ds2d2_yolo.deploy import export
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.utils.sampling import evenly_spaced

CHECK_IMAGES = 8  # on which the exported file is compared with PyTorch
MIN_CONFIDENCE = 0.01  # lowest score that the check of `export` compares


def export_student(
    weights: Path, plan: DemoPlan, data: str, images: Sequence[Path], device: str | int | None
) -> dict[str, Any]:
    """Export the student with the check of `export` against PyTorch.

    Args:
        weights (Path): Checkpoint of the student.
        plan (DemoPlan): Image size, and the confidence of the picture.
        data (str): Data-set YAML.
        images (Sequence[Path]): Validation images.
        device (str | int | None): Device of the detections, None for Ultralytics' choice.

    Returns:
        (dict[str, Any]): `file_mb`, and of the check `confidence`, `images`, `matched` and `differences`, the largest
            one of each kind. Without detections there is no check: `confidence` is None and `images` is 0.

    Raises:
        DS2D2Error: If the export or its check fails.
    """
    confidence = _check_confidence(weights, plan, images, device)
    exported = export(
        model=str(weights),
        format="onnx",
        imgsz=plan.imgsz,
        data=data,
        check=confidence is not None,
        check_limit=CHECK_IMAGES,
        check_conf=confidence or MIN_CONFIDENCE,
    )
    if confidence is not None:
        print(exported)  # in the log
    result: dict[str, Any] = {"file_mb": exported.megabytes, "images": 0, "matched": 0, "differences": {}}
    if (parity := exported.parity) is not None:
        largest = {kind: spread.largest for kind, spread in parity.differences.items()}
        result |= {"images": parity.images, "matched": parity.matched, "differences": largest}
    elif confidence is not None:
        raise DS2D2Error(f"{exported.file} could not be compared with PyTorch: {exported.unchecked}")
    return {**result, "confidence": confidence}


def describe_export(exported: dict[str, Any]) -> str:
    """Return the result of the export's check in one sentence.

    Args:
        exported (dict[str, Any]): See `export_student`.

    Returns:
        (str): The sentence.
    """
    head = f"ONNX of the distilled student ({exported['file_mb']:.1f} MB)"
    if not exported["images"]:
        return f"{head}: not compared with PyTorch, the student detects nothing yet."
    differences = ", ".join(f"{kind} {largest:.2g}" for kind, largest in exported["differences"].items())
    return (
        f"{head} against PyTorch: {exported['matched']} detections of confidence {exported['confidence']:g} and more "
        f"on {exported['images']} images matched; largest differences: {differences}."
    )


def _check_confidence(weights: Path, plan: DemoPlan, images: Sequence[Path], device: str | int | None) -> float | None:
    """Return the score from which the check compares detections.

    It is that of the picture, or the lowest one that `export` takes if all scores in the check's images are below. None
    if there is no detection at all, as after a short training on a few images of the user.
    """
    detected = detect(weights, evenly_spaced(images, CHECK_IMAGES), plan.imgsz, MIN_CONFIDENCE, device)
    highest = max((float(boxes.scores.max(initial=0)) for boxes in detected), default=0.0)
    return next((c for c in (plan.confidence, MIN_CONFIDENCE) if highest >= c), None)
