"""One job of a benchmark in a separate process: `python -m ds2d2_yolo.deploy.benchmarks.worker JOB.json ANSWER.json`.

In a separate process, peak memory is that of one model, and a crash of a runtime does not end the benchmark.
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
    """Export a checkpoint.

    Args:
        job (Job): model, format, args (of `export_args`) and folder.

    Returns:
        (Job): file.

    Raises:
        RuntimeError: If the machine cannot build an engine.
    """
    from ds2d2_yolo.bridge.inference import export as exporter

    checkpoint = exporter.open_checkpoint(job["model"], "benchmark", unfinished=True)
    if job["format"] == "engine" and (missing := exporter.missing_for_engine()):
        raise DS2D2Error(f"this machine lacks {missing}")
    args = exporter.export_args(job["format"], job["args"], checkpoint)
    file = exporter.write_export(checkpoint, job["format"], args, Path(job["folder"]))
    return {"file": str(file)}


def timing(job: Job) -> Job:
    """Load a file, warm up and time it, one image at a time and in batches.

    Args:
        job (Job): file, batched (file for batches), format, task, device, half, nms, channels, images, imgsz, batch,
            warmup and runs.

    Returns:
        (Job): forward, total and batches (milliseconds of each run), peak_mb, added_mb, threads and other_cores.

    Raises:
        RuntimeError: If PyTorch is to run in FP16 on a CPU.
    """
    from ds2d2_yolo.bridge.data.images import read_image
    from ds2d2_yolo.bridge.inference.backend_model import BackendModel
    from ds2d2_yolo.bridge.inference.benchmark import timings
    from ds2d2_yolo.bridge.upstream.devices import check_device, cpu_threads
    from ds2d2_yolo.bridge.upstream.hardware import LoadMeter, memory_now, peak_memory
    from ds2d2_yolo.bridge.upstream.logging import warnings_only

    with cpu_threads(), warnings_only():
        import torch

        device = check_device(job["device"])
        if job["format"] == "pt" and job["half"] and device.type == "cpu":
            raise DS2D2Error("PyTorch in FP16 needs a GPU")
        images = [read_image(Path(p), job["channels"]) for p in job["images"]]
        memory_before = memory_now()

        def load(file: str) -> BackendModel:
            end2end = job["nms"] is False if job["format"] == "pt" else None
            return BackendModel(Path(file), job["task"], device, end2end=end2end, half=job["half"])

        model = load(job["file"])
        with LoadMeter() as meter:
            forward, total = timings(model, images, job["imgsz"], 1, job["warmup"], job["runs"])
        peak = peak_memory(torch.device("cpu"))
        answer = {"forward": forward, "total": total, "peak_mb": peak, "threads": torch.get_num_threads(),
                  "added_mb": peak - memory_before, "other_cores": round(meter.other_cores, 2)}  # fmt: skip
        if job["batch"] > 1:
            runs = max(3, job["runs"] // job["batch"])
            batch_model = load(job["batched"])
            answer["batches"] = timings(batch_model, images, job["imgsz"], job["batch"], min(job["warmup"], 2), runs)[1]
    return answer


def accuracy(job: Job) -> Job:
    """Measure mAP.

    Args:
        job (Job): file, task, data, imgsz, device, nms and half.

    Returns:
        (Job): map50 and map50_95.
    """
    from ds2d2_yolo.bridge.inference.benchmark import accuracy as measure
    from ds2d2_yolo.bridge.upstream.devices import cpu_threads

    with cpu_threads():
        keys = {k: job[k] for k in ("data", "imgsz", "device", "nms")}
        map50, map50_95 = measure(Path(job["file"]), job["task"], **keys, quantize=16 if job["half"] else None)
    return {"map50": map50, "map50_95": map50_95}


JOBS: dict[str, Callable[[Job], Job]] = {"export": export, "timing": timing, "accuracy": accuracy}


def run_job(job: Job) -> Job:
    """Run one job.

    Args:
        job (Job): `work`, a key of `JOBS`, and the entries that its function needs.

    Returns:
        (Job): Its result.
    """
    return JOBS[job["work"]](job)


if __name__ == "__main__":
    sys.exit(serve(run_job, sys.argv[1:]))
