"""`benchmark`: what models cost and reach in formats on this machine.

Of Ultralytics' own benchmark serve: its export, its validation called as it calls it (one square image at a time, from
a score of 0.001) and its count of FLOPs. Its timing does not: `benchmark` takes the mean over the validation, without
warm-up, for one model, format after format, so that drift of the machine becomes a difference between formats;
`ProfileModels` knows ONNX and TensorRT alone, feeds noise, sets eight threads and cuts slow runs off, which is what a
95th percentile is about. Neither measures memory, keeps what it has or goes on after a failure in a runtime.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ds2d2_yolo.bridge.data.images import images_of
from ds2d2_yolo.bridge.data.security import refuse_code, safe_loading
from ds2d2_yolo.bridge.inference import benchmark as measuring
from ds2d2_yolo.bridge.inference import export as ultra
from ds2d2_yolo.bridge.upstream.devices import check_device
from ds2d2_yolo.bridge.upstream.hardware import LoadMeter, is_busy
from ds2d2_yolo.config.resources import resolve_data
from ds2d2_yolo.deploy.benchmark_inputs import named, refuse_unfit, timed
from ds2d2_yolo.deploy.exporting import size_of
from ds2d2_yolo.deploy.options import BenchmarkOptions, listed
from ds2d2_yolo.deploy.table import Row, as_csv, draw, ratios, row_of, table
from ds2d2_yolo.errors import BadUseError, DS2D2Error
from ds2d2_yolo.utils.atomic_files import write_json, write_whole
from ds2d2_yolo.utils.child_process import ChildError, child_environment, run_child

LOAD_SECONDS = 1.0  # of the look at the machine before anything is measured
QUANTIZE = {"": None, "fp16": 16, "int8": 8}


@dataclass(frozen=True)
class Benchmark:
    """A finished benchmark.

    Attributes:
        rows (tuple[Row, ...]): One for each model and format.
        machine (dict[str, Any]): Processor, threads and versions.
        folder (Path): Where benchmark.json, .csv, .md and .png lie.
        said (str): Settings in words.
        drawn (bool): Whether there is a picture: it needs speed and mAP.
    """

    rows: tuple[Row, ...]
    machine: dict[str, Any]
    folder: Path
    said: str
    drawn: bool = False

    def __str__(self) -> str:
        """Return the table."""
        m = self.machine
        versions = ", ".join(f"{k} {v}" for k, v in m["versions"].items())
        where = f"{m['gpu'] + ', ' if m['gpu'] else ''}{m['cpu']}, {m['cores']} cores, torch on {m['threads']} threads"
        files = "benchmark.csv, .json, .md" + (", .png" if self.drawn else "")
        other_cores = max((row.other_cores or 0.0 for row in self.rows), default=0.0)
        load = f"\n{_busy_line(other_cores, m['cores'])}" if is_busy(other_cores) else ""
        return f"{table(self.rows)}\n\n{self.said}\n{where}; {versions}{load}\nIn {self.folder}: {files}"


def _busy_line(other_cores: float, cores: int) -> str:
    """Return the warning of a machine that is not idle."""
    return (
        f"WARNING: other processes kept {other_cores:.1f} of {cores} cores busy: these times are not to be trusted. "
        "The same command on an idle machine measures the disturbed turns again"
    )


def benchmark(**keys: Any) -> Benchmark:
    """Measure latency, throughput, size, memory and mAP of checkpoints in formats.

    Every model and format has several turns, each in a process of its own, in changing order. What is measured is kept:
    the same command measures only what is missing, and tries again what failed.

    Args:
        **keys (Any): See `BenchmarkOptions`.

    Returns:
        (Benchmark): The rows; a format that fails here has its reason instead of numbers.

    Raises:
        BadUseError: If anything does not fit, before the first measurement.

    Examples:
        >>> benchmark(model="teacher.pt,plain.pt,best.pt", formats="pt,onnx", data="hit-uav.yaml")  # doctest: +SKIP
    """
    options = BenchmarkOptions.of(keys, "benchmark")
    if not options.model or not options.data:
        raise BadUseError("model= and data= are needed: ds2d2-yolo benchmark model=teacher.pt,best.pt data=D.yaml")
    with safe_loading(options.safe):
        if options.safe:
            refuse_code(options.data)
        bench = _bench(options, named(options.model), resolve_data(options.data))
        try:
            with FileLock(bench.folder / ".lock", timeout=0):
                return bench.run()
        except Timeout as e:
            raise BadUseError(f"another benchmark is at work in {bench.folder}: wait, or name another out=") from e


def _bench(options: BenchmarkOptions, names: list[tuple[str, str]], data: str) -> Bench:
    """Look at all that is to be measured, and make the folder of the results."""
    models = {name: ultra.open_checkpoint(path, "benchmark", unfinished=True) for name, path in names}
    if wrong := [name for name, model in models.items() if options.imgsz % model.stride]:
        raise BadUseError(f"imgsz={options.imgsz} must be a multiple of the stride of {', '.join(wrong)}")
    check_device(options.device)
    found = ultra.val_data(data)
    images = images_of(found["val"])
    refuse_unfit(models, found, images)
    folder = Path(options.out).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise BadUseError(f"out={options.out} cannot be written: {e.strerror}") from e
    return Bench(options, models, data, images, folder)


def _kept(file: Path) -> dict[str, Any]:
    """Return what an earlier command measured, nothing if there is no such file.

    Raises:
        BadUseError: If it holds something else.
    """
    if not file.is_file():
        return {}
    try:
        return {k: {**v, "turns": dict(v["turns"])} for k, v in json.loads(file.read_bytes())["cells"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise BadUseError(f"{file} holds no measurements: name another folder with out=, or remove it") from e


class Bench:
    """The measurements of one command.

    Args:
        options (BenchmarkOptions): What to measure.
        models (dict[str, Checkpoint]): The checkpoints by name.
        data (str): Data YAML.
        images (list[Path]): Its validation images.
        folder (Path): Where results are kept.
    """

    def __init__(
        self,
        options: BenchmarkOptions,
        models: dict[str, ultra.Checkpoint],
        data: str,
        images: list[Path],
        folder: Path,
    ) -> None:
        self.options, self.models, self.data, self.folder = options, models, data, folder
        self.images = [str(p) for p in timed(images)]
        self.count = len(images)
        self.file = folder / "benchmark.json"
        self.machine = measuring.machine()
        self.kept: dict[str, Any] = {}
        self.cells: dict[str, dict[str, Any]] = {}

    def run(self) -> Benchmark:
        """Measure what is missing and write the results; the folder is this command's alone while it lasts."""
        self.kept = _kept(self.file)
        self.cells = dict(self._cells())
        self._look_at_load()
        cells = list(self.cells.values())
        for cell in cells:
            self._export(cell)
        for turn in range(self.options.rounds):
            for cell in cells if turn % 2 == 0 else cells[::-1]:
                self._time(cell, str(turn))
        for cell in cells:
            self._accuracy(cell)
        return self._write()

    def _look_at_load(self) -> None:
        """Warn before anything is measured if the machine is busy."""
        with LoadMeter() as load:
            time.sleep(LOAD_SECONDS)
        if is_busy(load.other_cores):
            print(_busy_line(load.other_cores, self.machine["cores"]), flush=True)

    def _cells(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield each model and format with what is known of it already."""
        o = self.options
        common = {k: getattr(o, k) for k in ("imgsz", "runs", "rounds", "warmup", "batch", "nms", "device", "fraction")}
        common |= {"data": measuring.data_identity(self.data), "machine": self.machine}
        for name, checkpoint in self.models.items():
            digest = hashlib.sha256(checkpoint.path.read_bytes()).hexdigest()
            facts = {"parameters": checkpoint.parameters, "gflops": measuring.gflops(checkpoint.path, o.imgsz)}
            for format in listed(o.formats):
                # once it was traced on the CPU, whatever the device
                made = ["on its device"] if format.startswith("torchscript") else []
                told = json.dumps([name, digest, format, common, *made], sort_keys=True)
                key = hashlib.sha256(told.encode()).hexdigest()[:16]
                cell = self.kept.setdefault(key, {"turns": {}})
                cell.update(key=key, model=name, format=format, path=str(checkpoint.path), **facts)
                cell.pop("reason", None)  # what failed is tried again
                yield key, cell

    def _export(self, cell: dict[str, Any]) -> None:
        """Make the files of a cell, one for single images and one for batches."""
        base, _, precision = cell["format"].partition("-")
        if base == "pt":
            cell["file"] = cell["batched"] = cell["path"]
        for name, batch in (("file", 1), ("batched", self.options.batch)):
            if batch == 1 and name == "batched":
                cell[name] = cell.get("file")
            if cell.get(name) and Path(cell[name]).exists():
                continue
            folder = self.folder / "files" / f"{cell['model']}-{cell['format']}-{cell['key']}-{batch}"
            o = self.options
            args: dict[str, Any] = {"imgsz": o.imgsz, "batch": batch, "nms": o.nms, "quantize": QUANTIZE[precision]}
            if precision == "int8":
                args |= {"data": self.data, "fraction": o.fraction}
            # TorchScript keeps the device that it was traced on, and has FP16 on a GPU only
            args |= {"device": o.device} if base in {"engine", "torchscript"} else {}
            self._ask(cell, {"work": "export", "model": cell["path"], "format": base, "args": args,
                             "folder": str(folder)}, f"export, batch {batch}", {"file": name})  # fmt: skip
        if not cell.get("reason"):
            cell["file_mb"] = size_of(Path(cell["file"]))

    def _time(self, cell: dict[str, Any], turn: str) -> None:
        """Give a cell one of its turns."""
        if cell.get("reason") or (turn in cell["turns"] and not is_busy(cell["turns"][turn].get("other_cores", 0.0))):
            return
        o = self.options
        runs = o.runs // o.rounds + (int(turn) < o.runs % o.rounds)
        answer = self._ask(cell, {**self._job(cell, "timing"), "batched": cell["batched"], "runs": runs,
                                  "warmup": o.warmup, "batch": o.batch, "images": self.images},
                           f"turn {int(turn) + 1} of {o.rounds}")  # fmt: skip
        if answer:
            cell["turns"][turn] = answer
            self._save()

    def _accuracy(self, cell: dict[str, Any]) -> None:
        """Measure the mAP of a cell."""
        if not cell.get("reason") and "map50" not in cell:
            cell |= self._ask(cell, {**self._job(cell, "accuracy"), "data": self.data}, "mAP")
            self._save()

    def _job(self, cell: dict[str, Any], work: str) -> dict[str, Any]:
        """Return what every job on a file has to know."""
        base, _, precision = cell["format"].partition("-")
        half = precision == "fp16" and base in {"pt", "torchscript"}
        task, channels = self.models[cell["model"]].task, self.models[cell["model"]].channels
        return {"work": work, "file": cell["file"], "format": base, "task": task, "half": half, "nms": self.options.nms,
                "imgsz": self.options.imgsz, "device": self.options.device, "channels": channels}  # fmt: skip

    def _ask(
        self, cell: dict[str, Any], job: dict[str, Any], what: str, rename: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """Have a job done in a process of its own; a failure becomes the cell's reason."""
        if cell.get("reason"):
            return {}
        print(f"{cell['model']} {cell['format']}: {what}", flush=True)
        try:
            answer = run_child("ds2d2_yolo.deploy.worker", job, child_environment({"YOLO_AUTOINSTALL": "false"}))
        except ChildError as e:
            cell["reason"] = f"{what}: {e}"
            print(f"{cell['model']} {cell['format']}: {cell['reason']}", flush=True)
            return {}
        for old, new in (rename or {}).items():
            cell[new] = answer[old]
        self._save()
        return dict(answer)

    def _save(self) -> None:
        """Keep everything measured so far."""
        write_json(self.file, {"machine": self.machine, "cells": self.kept})

    def _write(self) -> Benchmark:
        """Write table, CSV and picture of this command's cells."""
        o = self.options
        rows = ratios([row_of(c, o.batch) for c in self.cells.values()])
        threads = [t["threads"] for c in self.cells.values() for t in c["turns"].values()]
        machine = {**self.machine, "threads": max(threads, default="?")}
        said = (
            f"{o.imgsz} x {o.imgsz} px on {o.device}; {o.runs} timed runs each in {o.rounds} turns after {o.warmup} to "
            f"warm up; total is letterbox, forward pass and NMS of one image; img/s in batches of {o.batch}; mAP on "
            f"{self.count} validation images of {self.data}"
        )
        if o.nms:
            said += "; NMS inside a file drops scores under 0.25, before mAP too"
        title = f"{o.imgsz} px, {machine['cpu']}, {machine['cores']} cores"
        found = Benchmark(tuple(rows), machine, self.folder, said, draw(rows, self.folder / "benchmark.png", title))
        self._save()
        write_whole(self.folder / "benchmark.csv", as_csv(rows))
        write_whole(self.folder / "benchmark.md", f"```\n{found}\n```\n")
        if not any(cell["turns"] for cell in self.cells.values()):
            print(table(rows))
            raise DS2D2Error("nothing could be measured, the table says why")
        return found
