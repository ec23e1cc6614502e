"""The command that builds a TensorRT engine on another machine, for a machine that cannot build one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import Any


def next_step(onnx: Path, args: Mapping[str, Any], channels: int, quantised: bool = False) -> str:
    """Return the command that builds an engine from an ONNX file.

    It sets what Ultralytics' build sets: with dynamic=True images from 32 px to twice the image size and batches of up
    to `batch`. The flags are those of TensorRT 8.4 to 10.

    Args:
        onnx (Path): The ONNX file, in FP32 or with Q/DQ nodes.
        args (Mapping[str, Any]): Of `bridge.inference.export.export_args`.
        channels (int): Channels of the input.
        quantised (bool): Whether the file has Q/DQ nodes. Layers without them then run in FP16, as in Ultralytics'
            build (8.4.190).

    Returns:
        (str): The command. For INT8 without Q/DQ nodes it is the export itself on the machine with the GPU, since
            trtexec does not calibrate on images.
    """
    if args["quantize"] == 8 and not quantised:
        data = quote(str(args["data"]))
        return f"run this export on the machine with the GPU, with data={data} there for its calibration"
    engine = onnx.with_suffix(".engine")
    words = ["trtexec", f"--onnx={quote(str(onnx))}", f"--saveEngine={quote(str(engine))}"]
    if args["quantize"] == 8:
        words.append("--int8")
    if args["quantize"] in {8, 16}:
        words.append("--fp16")
    if args.get("dynamic"):
        (height, width), batch = args["imgsz"], args["batch"]
        words += [
            f"--minShapes=images:1x{channels}x32x32",
            f"--optShapes=images:{batch}x{channels}x{height}x{width}",
            f"--maxShapes=images:{batch}x{channels}x{2 * height}x{2 * width}",
        ]
    if args.get("workspace"):
        words.append(f"--memPoolSize=workspace:{round(args['workspace'] * 1024)}")  # MiB
    return " ".join(words)
