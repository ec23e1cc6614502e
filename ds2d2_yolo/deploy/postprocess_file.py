"""The copy of `postprocess` beside an exported file, with the constants of its model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ds2d2_yolo.bridge.inference.export import Checkpoint
from ds2d2_yolo.deploy import postprocess
from ds2d2_yolo.utils.atomic_files import replacing

# Formats whose output has the rows that `postprocess.detect` reads, in pixels; Ultralytics' others divide by the size
FORMATS = frozenset({"onnx", "openvino", "torchscript", "engine"})
CONSTANTS = re.compile(r"(?<=# The constants of the exported model\.\n).*(?=# The end of the constants\.\n)", re.DOTALL)


def write_postprocess(file: Path, checkpoint: Checkpoint, format: str, args: Mapping[str, Any]) -> Path | None:
    """Write the copy atomically.

    Args:
        file (Path): The exported file or folder.
        checkpoint (Checkpoint): Its checkpoint.
        format (str): Its format.
        args (Mapping[str, Any]): Settings of the export.

    Returns:
        (Path | None): The Python file, importable by its name. None where NMS is inside the file, or for a format with
            another output.
    """
    if format not in FORMATS or args["nms"]:
        return None
    # an end-to-end head is exported as such with nms=False, and as one that needs NMS by default (Ultralytics 8.4.190)
    constants = {
        "NAMES": checkpoint.names, "HEIGHT, WIDTH": tuple(args["imgsz"]), "ROTATED": checkpoint.task == "obb",
        "END2END": checkpoint.end2end and args["nms"] is False,
        "CONF, IOU, MAX_DET": tuple(
            default if args.get(key) is None else args[key]
            for key, default in (("conf", postprocess.CONF), ("iou", postprocess.IOU), ("max_det", postprocess.MAX_DET))
        ),
    }  # fmt: skip
    lines = "".join(f"{name} = {value!r}\n" for name, value in constants.items())
    target = file.with_name(re.sub(r"\W", "_", file.stem) + "_postprocess.py")
    source = Path(str(postprocess.__file__)).read_text(encoding="utf-8")
    source = source.replace("best_postprocess", target.stem).replace("best.onnx", file.name)
    with replacing(target) as temporary:
        temporary.write_text(CONSTANTS.sub(lambda _: lines, source), encoding="utf-8")
    return target
