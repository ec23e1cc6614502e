"""One piece of a benchmark in a process of its own: `python -m ds2d2_yolo.deploy.worker REQUEST.json RESPONSE.json`.

A process of its own keeps memory honest, and a crash of a runtime from taking the benchmark with it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.utils.child_process import serve

Job = dict[str, Any]


def export(job: Job) -> Job:
    """Export a checkpoint to a format."""
    from ds2d2_yolo.bridge.inference import export as ultra

    checkpoint = ultra.open_checkpoint(job["model"], "benchmark", unfinished=True)
    if job["format"] == "engine" and (lacks := ultra.engine_lacks()):
        raise DS2D2Error(f"this machine lacks {lacks}")
    args = ultra.export_args(job["format"], job["args"], checkpoint)
    file = ultra.write_export(checkpoint, job["format"], args, Path(job["folder"]))
    return {"file": str(file)}


def timing(job: Job) -> Job:
    """Load a file, warm up and time it, one image at a time and in batches."""
    from ds2d2_yolo.bridge.data.images import read_image
    from ds2d2_yolo.bridge.inference.backend_model import Detector
    from ds2d2_yolo.bridge.inference.benchmark import timings
    from ds2d2_yolo.bridge.inference.export import quiet
    from ds2d2_yolo.bridge.upstream.devices import check_device, cpu_threads
    from ds2d2_yolo.bridge.upstream.hardware import LoadMeter, memory_now, peak_memory

    with cpu_threads(), quiet():
        import torch

        device = check_device(job["device"])
        if job["format"] == "pt" and job["half"] and device.type == "cpu":
            raise DS2D2Error("PyTorch in FP16 needs a GPU")
        images = [read_image(Path(p), job["channels"]) for p in job["images"]]
        before = memory_now()

        def load(file: str) -> Detector:
            head = job["nms"] is False if job["format"] == "pt" else None
            return Detector(Path(file), job["task"], device, end2end=head, half=job["half"])

        detector = load(job["file"])
        with LoadMeter() as meter:
            forward, total = timings(detector, images, job["imgsz"], 1, job["warmup"], job["runs"])
        peak = peak_memory(torch.device("cpu"))
        answer = {"forward": forward, "total": total, "peak_mb": peak, "threads": torch.get_num_threads(),
                  "added_mb": peak - before, "other_cores": round(meter.other_cores, 2)}  # fmt: skip
        if job["batch"] > 1:
            runs = max(3, job["runs"] // job["batch"])
            many = load(job["batched"])
            answer["batches"] = timings(many, images, job["imgsz"], job["batch"], min(job["warmup"], 2), runs)[1]
    return answer


def accuracy(job: Job) -> Job:
    """Measure mAP."""
    from ds2d2_yolo.bridge.inference.benchmark import accuracy as measure
    from ds2d2_yolo.bridge.upstream.devices import cpu_threads

    with cpu_threads():
        keys = {k: job[k] for k in ("data", "imgsz", "device", "nms")}
        map50, map50_95 = measure(Path(job["file"]), job["task"], **keys, quantize=16 if job["half"] else None)
    return {"map50": map50, "map50_95": map50_95}


WORKS: dict[str, Callable[[Job], Job]] = {"export": export, "timing": timing, "accuracy": accuracy}


def work(job: Job) -> Job:
    """Do one job.

    Args:
        job (Job): `work`, a key of `WORKS`, and what that function needs.

    Returns:
        (Job): Its result.
    """
    return WORKS[job["work"]](job)


if __name__ == "__main__":
    sys.exit(serve(work, sys.argv[1:]))
