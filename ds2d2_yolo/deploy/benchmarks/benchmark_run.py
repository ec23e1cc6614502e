"""The measurements of one benchmark: jobs in separate processes, and results that are kept between commands."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ds2d2_yolo.bridge.inference import benchmark as measuring
from ds2d2_yolo.bridge.inference.export import Checkpoint
from ds2d2_yolo.bridge.upstream.hardware import LoadMeter, is_busy
from ds2d2_yolo.deploy.benchmarks.benchmark_inputs import timed_images
from ds2d2_yolo.deploy.benchmarks.table import BenchmarkRow, as_csv, draw, ratios, row_of, table
from ds2d2_yolo.deploy.exporting import size_mb
from ds2d2_yolo.deploy.options import BenchmarkOptions, split_names
from ds2d2_yolo.errors import BadUseError, DS2D2Error
from ds2d2_yolo.utils.atomic_files import write_atomically, write_json
from ds2d2_yolo.utils.child_process import ChildError, child_environment, run_child
from ds2d2_yolo.utils.progress import Task, tracked

LOAD_SECONDS = 1.0  # duration of the load measurement before the first job
WORKER = "ds2d2_yolo.deploy.benchmarks.worker"  # runs a job in a child process
QUANTIZE = {"": None, "fp16": 16, "int8": 8}
# options that a result depends on
RESULT_OPTIONS = ("imgsz", "runs", "rounds", "warmup", "batch", "nms", "device", "fraction")
Cell = dict[str, Any]  # facts and results of one model in one format, as benchmark.json holds them


@dataclass(frozen=True)
class Benchmark:
    """A finished benchmark.

    Attributes:
        rows (tuple[BenchmarkRow, ...]): One for each model and format.
        machine (dict[str, Any]): Processor, threads and versions.
        folder (Path): Folder of benchmark.json, .csv, .md and .png.
        settings (str): Settings as text.
        plotted (bool): Whether there is a plot: it needs speed and mAP.
        warnings (tuple[str, ...]): Reasons to doubt a number, one line each.
    """

    rows: tuple[BenchmarkRow, ...]
    machine: dict[str, Any]
    folder: Path
    settings: str
    plotted: bool = False
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return the table, the machine and the warnings."""
        m = self.machine
        versions = ", ".join(f"{k} {v}" for k, v in m["versions"].items())
        gpu = f"{m['gpu']}, " if m["gpu"] else ""
        machine = f"{gpu}{m['cpu']}, {m['cores']} cores, torch on {m['threads']} threads"
        files = "benchmark.csv, .json, .md" + (", .png" if self.plotted else "")
        lines = [table(self.rows), "", self.settings, f"{machine}; {versions}", *self.warnings]
        return "\n".join([*lines, f"In {self.folder}: {files}"])


def _load_warning(other_cores: float, cores: int) -> str:
    """Return the warning of a machine that is not idle."""
    return (
        f"WARNING: other processes kept {other_cores:.1f} of {cores} cores busy: these times are not to be trusted. "
        "The same command on an idle machine measures the disturbed turns again"
    )


def _read_cells(file: Path) -> dict[str, Cell]:
    """Return the results of an earlier command, none if there is no file.

    Raises:
        BadUseError: If the file holds something else.
    """
    if not file.is_file():
        return {}
    try:
        return {k: {**v, "turns": dict(v["turns"])} for k, v in json.loads(file.read_bytes())["cells"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise BadUseError(f"{file} holds no measurements: name another folder with out=, or remove it") from e


class BenchmarkRun:
    """The measurements of one command.

    Args:
        options (BenchmarkOptions): Formats and settings.
        models (dict[str, Checkpoint]): The checkpoints by name.
        data (str): Data YAML.
        images (list[Path]): Its validation images.
        folder (Path): Folder of the results.
        warnings (tuple[str, ...]): Warnings about models and data, one line each.
    """

    def __init__(
        self, options: BenchmarkOptions, models: dict[str, Checkpoint], data: str, images: list[Path], folder: Path,
        warnings: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        self.options, self.models, self.data, self.folder, self.warnings = options, models, data, folder, warnings
        self.images = [str(p) for p in timed_images(images)]
        self.image_count = len(images)
        self.file = folder / "benchmark.json"
        self.machine = measuring.machine_facts()
        self.saved_cells: dict[str, Cell] = {}  # of all commands in this folder
        self.cells: dict[str, Cell] = {}  # of this command
        self.jobs = 0  # that this command has started
        self.task: Task

    def run(self) -> Benchmark:
        """Measure what is missing and write the results; no other command may use the folder meanwhile."""
        self.saved_cells = _read_cells(self.file)
        self.cells = dict(self._cells())
        for warning in self.warnings:
            print(warning, flush=True)
        self._warn_of_load()
        cells = list(self.cells.values())
        rounds = self.options.rounds
        steps = len(cells) * (1 + rounds + 1)  # export, turns, accuracy
        with tracked("benchmark", steps, sys.stderr, shown=self.options.verbose) as self.task:
            for cell in cells:
                self._step(self._export, cell)
            for turn in range(rounds):
                for cell in cells if turn % 2 == 0 else cells[::-1]:
                    self._step(self._time, cell, str(turn))
            for cell in cells:
                self._step(self._measure_accuracy, cell)
        return self._write()

    def _step(self, measure: Callable[..., None], cell: Cell, *arguments: Any) -> None:
        """Do a step of a cell; a step that starts no job counts as skipped."""
        jobs = self.jobs
        measure(cell, *arguments)
        if self.jobs > jobs:
            self.task.advance()
        else:
            self.task.skip(1)

    def _warn_of_load(self) -> None:
        """Warn before the first measurement if the machine is busy."""
        with LoadMeter() as load:
            time.sleep(LOAD_SECONDS)
        if is_busy(load.other_cores):
            print(_load_warning(load.other_cores, self.machine["cores"]), flush=True)

    def _cells(self) -> Iterator[tuple[str, Cell]]:
        """Yield key and earlier results of each model and format."""
        common = {k: getattr(self.options, k) for k in RESULT_OPTIONS}
        common |= {"data": measuring.data_identity(self.data), "machine": self.machine}
        for name, checkpoint in self.models.items():
            digest = hashlib.sha256(checkpoint.path.read_bytes()).hexdigest()
            flops = measuring.gflops(checkpoint.path, self.options.imgsz)
            facts = {"parameters": checkpoint.parameters, "gflops": flops}
            for format in split_names(self.options.formats):
                # an earlier version traced TorchScript on the CPU for every device: those results are not reused
                trace = ["on its device"] if format.startswith("torchscript") else []
                identity = json.dumps([name, digest, format, common, *trace], sort_keys=True)
                key = hashlib.sha256(identity.encode()).hexdigest()[:16]
                cell = self.saved_cells.setdefault(key, {"turns": {}})
                cell.update(key=key, model=name, format=format, path=str(checkpoint.path), **facts)
                cell.pop("reason", None)  # a failure is tried again
                yield key, cell

    def _export(self, cell: Cell) -> None:
        """Export the files of a cell: 'file' for single images, 'batched' for batches."""
        base = cell["format"].partition("-")[0]
        if base == "pt":
            cell["file"] = cell["batched"] = cell["path"]
        for name, batch in (("file", 1), ("batched", self.options.batch)):
            if batch == 1 and name == "batched":
                cell[name] = cell.get("file")
            if cell.get(name) and Path(cell[name]).exists():
                continue
            folder = self.folder / "files" / f"{cell['model']}-{cell['format']}-{cell['key']}-{batch}"
            job = {
                "work": "export", "model": cell["path"], "format": base, "args": self._export_args(cell, batch),
                "folder": str(folder),
            }  # fmt: skip
            self._run_job(cell, job, f"export, batch {batch}", {"file": name})
        if not cell.get("reason"):
            cell["file_mb"] = size_mb(Path(cell["file"]))

    def _export_args(self, cell: Cell, batch: int) -> dict[str, Any]:
        """Return the settings of the export of a cell."""
        base, _, precision = cell["format"].partition("-")
        o = self.options
        args: dict[str, Any] = {"imgsz": o.imgsz, "batch": batch, "nms": o.nms, "quantize": QUANTIZE[precision]}
        if precision == "int8":
            args |= {"data": self.data, "fraction": o.fraction}
        if base in {"engine", "torchscript"}:  # TorchScript runs on the device that it was traced on, FP16 on GPUs only
            args["device"] = o.device
        return args

    def _time(self, cell: Cell, turn: str) -> None:
        """Time a cell in one of its turns, unless an undisturbed result is there."""
        if cell.get("reason") or (turn in cell["turns"] and not is_busy(cell["turns"][turn].get("other_cores", 0.0))):
            return
        o = self.options
        runs = o.runs // o.rounds + (int(turn) < o.runs % o.rounds)
        job = {
            **self._file_job(cell, "timing"), "batched": cell["batched"], "runs": runs, "warmup": o.warmup,
            "batch": o.batch, "images": self.images,
        }  # fmt: skip
        answer = self._run_job(cell, job, f"turn {int(turn) + 1} of {o.rounds}")
        if answer:
            cell["turns"][turn] = answer
            self._save()

    def _measure_accuracy(self, cell: Cell) -> None:
        """Measure the mAP of a cell, unless it is there."""
        if not cell.get("reason") and "map50" not in cell:
            cell |= self._run_job(cell, {**self._file_job(cell, "accuracy"), "data": self.data}, "mAP")
            self._save()

    def _file_job(self, cell: Cell, work: str) -> dict[str, Any]:
        """Return the entries that every job on an exported file needs."""
        base, _, precision = cell["format"].partition("-")
        half = precision == "fp16" and base in {"pt", "torchscript"}
        model, o = self.models[cell["model"]], self.options
        return {
            "work": work, "file": cell["file"], "format": base, "task": model.task, "half": half, "nms": o.nms,
            "imgsz": o.imgsz, "device": o.device, "channels": model.channels,
        }  # fmt: skip

    def _run_job(
        self, cell: Cell, job: dict[str, Any], title: str, rename: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """Run a job in a separate process and return its answer; a failure becomes the cell's reason."""
        if cell.get("reason"):
            return {}
        self.jobs += 1
        name = f"{cell['model']} {cell['format']}"
        self.task.show_step(f"{name}, {title}")
        try:
            answer: dict[str, Any] = run_child(WORKER, job, child_environment({"YOLO_AUTOINSTALL": "false"}))
        except ChildError as e:
            cell["reason"] = f"{title}: {e}"
            self.task.note(f"{name}: {cell['reason']}")
            return {}
        for old, new in (rename or {}).items():
            cell[new] = answer[old]
        self._save()
        return answer

    def _save(self) -> None:
        """Write all results so far."""
        write_json(self.file, {"machine": self.machine, "cells": self.saved_cells})

    def _write(self) -> Benchmark:
        """Write table, CSV and plot of this command's cells."""
        rows = ratios([row_of(c, self.options.batch) for c in self.cells.values()])
        threads = [t["threads"] for c in self.cells.values() for t in c["turns"].values()]
        machine = {**self.machine, "threads": max(threads, default="?")}
        title = f"{self.options.imgsz} px, {machine['cpu']}, {machine['cores']} cores"
        plotted = draw(rows, self.folder / "benchmark.png", title)
        other_cores = max((row.other_cores or 0.0 for row in rows), default=0.0)
        load = (_load_warning(other_cores, machine["cores"]),) if is_busy(other_cores) else ()
        result = Benchmark(tuple(rows), machine, self.folder, self._settings(), plotted, load + self.warnings)
        self._save()
        write_atomically(self.folder / "benchmark.csv", as_csv(rows))
        write_atomically(self.folder / "benchmark.md", f"```\n{result}\n```\n")
        if not any(cell["turns"] for cell in self.cells.values()):
            print(table(rows))
            raise DS2D2Error("nothing could be measured, the table says why")
        return result

    def _settings(self) -> str:
        """Return the settings as text."""
        o = self.options
        text = (
            f"{o.imgsz} x {o.imgsz} px on {o.device}; {o.runs} timed runs each in {o.rounds} turns after {o.warmup} to "
            f"warm up; total is letterbox, forward pass and NMS of one image; img/s in batches of {o.batch}; mAP on "
            f"{self.image_count} validation images of {self.data}"
        )
        return f"{text}; NMS inside a file drops scores under 0.25, before mAP too" if o.nms else text
