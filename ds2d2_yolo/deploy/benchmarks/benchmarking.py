"""`benchmark`: latency, throughput, size, memory and mAP of models in several formats on this machine.

It uses three parts of Ultralytics: the export, the validation as its own benchmark calls it (one square image at a
time, from a score of 0.001) and the count of FLOPs. It does not use Ultralytics' timing: `benchmark` takes the mean
over the validation, without warm-up, for one model, format after format, so that drift of the machine becomes a
difference between formats; `ProfileModels` knows only ONNX and TensorRT, feeds noise, sets eight threads and clips slow
runs, which are what a 95th percentile measures. Neither measures memory, keeps results or continues after a failure in
a runtime.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ds2d2_yolo.bridge.data.images import list_images
from ds2d2_yolo.bridge.data.security import refuse_code_in_data, safe_loading
from ds2d2_yolo.bridge.inference import export as exporter
from ds2d2_yolo.bridge.upstream.devices import check_device
from ds2d2_yolo.config.resources import resolve_data
from ds2d2_yolo.deploy.benchmarks.benchmark_inputs import class_warnings, parse_models, refuse_unfit
from ds2d2_yolo.deploy.benchmarks.benchmark_run import Benchmark, BenchmarkRun
from ds2d2_yolo.deploy.options import BenchmarkOptions
from ds2d2_yolo.errors import BadUseError


def benchmark(**keys: Any) -> Benchmark:
    """Measure latency, throughput, size, memory and mAP of checkpoints in several formats.

    Every model and format has several turns, each in a separate process, in alternating order. Results are kept: the
    same command measures only what is missing, and retries what failed.

    Args:
        **keys (Any): See `BenchmarkOptions`.

    Returns:
        (Benchmark): The rows; a format that fails here has its reason instead of numbers.

    Raises:
        BadUseError: If anything does not fit, before the first measurement.
        DS2D2Error: If nothing could be measured.

    Examples:
        >>> benchmark(model="teacher.pt,plain.pt,best.pt", formats="pt,onnx", data="hit-uav.yaml")  # doctest: +SKIP
    """
    options = BenchmarkOptions.of(keys, "benchmark")
    if not options.model or not options.data:
        raise BadUseError("model= and data= are needed: ds2d2-yolo benchmark model=teacher.pt,best.pt data=D.yaml")
    with safe_loading(options.safe):
        if options.safe:
            refuse_code_in_data(options.data)
        run = _prepare(options, parse_models(options.model), resolve_data(options.data))
        try:
            with FileLock(run.folder / ".lock", timeout=0):
                return run.run()
        except Timeout as e:
            raise BadUseError(f"another benchmark is at work in {run.folder}: wait, or name another out=") from e


def _prepare(options: BenchmarkOptions, models: list[tuple[str, str]], data: str) -> BenchmarkRun:
    """Check models and data against each other, and create the folder of the results."""
    checkpoints = {name: exporter.open_checkpoint(path, "benchmark", unfinished=True) for name, path in models}
    if unfit := [name for name, model in checkpoints.items() if options.imgsz % model.stride]:
        raise BadUseError(f"imgsz={options.imgsz} must be a multiple of the stride of {', '.join(unfit)}")
    check_device(options.device)
    dataset = exporter.val_data(data)
    images = list_images(dataset["val"])
    refuse_unfit(checkpoints, dataset, images)
    folder = Path(options.out).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise BadUseError(f"out={options.out} cannot be written: {e.strerror}") from e
    return BenchmarkRun(options, checkpoints, data, images, folder, class_warnings(checkpoints, dataset))
