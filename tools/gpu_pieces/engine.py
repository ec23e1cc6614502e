"""Export to TensorRT and its parity with PyTorch."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ds2d2_yolo.config.resources import resolve_model
from ds2d2_yolo.demo.shipped_teacher import TEACHER
from ds2d2_yolo.deploy.exporting import export
from gpu_pieces.runner import Save, Skip


def engine_parity(options: Mapping[str, Any], save: Save) -> dict[str, Any]:
    """Export the teacher to an engine in half precision, and compare its detections with PyTorch's.

    Args:
        options (Mapping[str, Any]): 'teacher', 'data', 'device', 'folder'.
        save (Save): Stores the parity before it is judged.

    Returns:
        (dict[str, Any]): Numbers of detections and the quantiles of the differences.

    Raises:
        Skip: If TensorRT is not installed.
        ValueError: If the check does not hold.
    """
    if find_spec("tensorrt") is None:
        raise Skip("TensorRT is not installed")
    folder = Path(options["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    model = Path(shutil.copy(resolve_model(options["teacher"] or TEACHER), folder / "teacher.pt"))
    images = {"check_images": options["data"]} if options["data"] else {}
    exported = export(model=str(model), format="engine", half=True, device=options["device"], **images)
    if exported.parity is None:
        raise ValueError(f"not checked: {exported.unchecked}")
    parity = exported.parity
    figures = {
        "export s": exported.seconds,
        "MB": exported.megabytes,
        "matched": parity.matched,
        "only PyTorch": parity.only_torch,
        "only the engine": parity.only_file,
        "tolerance quantile": {k: v.judged(parity.tolerance.quantile) for k, v in parity.differences.items()},
    }
    save(figures)
    if not parity.holds:
        raise ValueError("; ".join(parity.wrong))
    return figures
