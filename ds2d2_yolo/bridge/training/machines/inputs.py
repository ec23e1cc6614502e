"""Comparison of what several machines would train on, before any of them begins.

Every machine reads files from its disk, and each process takes its share of the images by their numbers. With different
files, some images would be trained on twice and others never, or processes would wait for batches that do not come.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ultralytics.utils import LOCAL_RANK
from ultralytics.utils import __version__ as ultralytics_version

from ds2d2_yolo._version import __version__
from ds2d2_yolo.bridge.data.dataset import data_hash
from ds2d2_yolo.bridge.data.images import list_images
from ds2d2_yolo.bridge.preflight.prepared_run import PreparedRun
from ds2d2_yolo.bridge.training.machines.store import INPUTS, MachineStore, machine_name
from ds2d2_yolo.bridge.upstream.arguments import ARGS_KEY
from ds2d2_yolo.errors import BadUseError

# Settings that may differ between machines. Files are compared by their contents.
OF_A_MACHINE = {
    ARGS_KEY, "amplifier", "cache", "cfg", "data", "device", "exist_ok", "mode", "model", "name", "plots", "pretrained",
    "project", "resume", "save_dir", "teacher", "unlabelled", "verbose", "workers",
}  # fmt: skip
DIGITS = 12  # of a hash in a message
LENGTH = 60  # of a value in a message


def run_inputs(run: PreparedRun) -> dict[str, str]:
    """Return what must be the same on all machines.

    Args:
        run (PreparedRun): The run, as this machine has prepared it.

    Returns:
        (dict[str, str]): Values by name: versions, teacher, student, classes, images and contents of both splits,
            unlabelled images, settings.
    """
    args, data = run.args, run.data
    settings = {**vars(args), **run.settings.as_dict()}
    inputs = {
        "ds2d2-yolo": __version__,
        "ultralytics": ultralytics_version,
        "torch": str(torch.__version__),
        "teacher": run.teacher.sha256[:DIGITS],
        "classes": ", ".join(data["names"].values()),
    }
    if not args.resume:
        pretrained = args.pretrained if isinstance(args.pretrained, (str, Path)) else None
        inputs["student"] = _content(pretrained or args.model)
    for split, name in (("train", "training"), (args.split, "validation")):
        if data.get(split):
            inputs[f"{name} images"] = str(len(list_images(data[split])))
            inputs[f"contents of the {name} data"] = data_hash({**data, "train": data[split]})[:DIGITS]
    if run.unlabelled is not None:
        inputs["unlabelled images"] = str(len(run.unlabelled.images))
        inputs["names and sizes of the unlabelled images"] = run.unlabelled.sha256[:DIGITS]
    return inputs | {f"{key}=": str(settings[key]) for key in sorted(settings.keys() - OF_A_MACHINE)}


def compare_machines(run: PreparedRun, store: MachineStore) -> None:
    """Refuse a run for which the machines have different inputs, in all processes.

    Args:
        run (PreparedRun): The run, as this machine has prepared it.
        store (MachineStore): The store of the launch.

    Raises:
        BadUseError: If inputs differ, or if another process has failed.
    """
    # the processes of a machine have the same command and the same files
    report = {"machine": machine_name(), "inputs": run_inputs(run) if LOCAL_RANK <= 0 else {}}
    store.compared = True
    reports = store.gather(INPUTS, report)
    if refusal := describe_refusal(reports):
        raise BadUseError(refusal)


def describe_refusal(reports: Sequence[Mapping[str, Any]]) -> str | None:
    """Return why the processes cannot train together.

    Args:
        reports (Sequence[Mapping[str, Any]]): Of each process: `machine`, its name, and either `inputs`, values by
            name, or `error`, one line. A process may leave inputs out.

    Returns:
        (str | None): One line that names the machines, None if they can.
    """
    errors = [f"{report['machine']}: {report['error']}" for report in reports if report.get("error")]
    if errors:
        return "; ".join(dict.fromkeys(errors))
    differences = {}
    for name in dict.fromkeys(name for report in reports for name in report["inputs"]):
        machines: dict[str, list[str]] = {}
        for report in reports:
            if name in report["inputs"]:
                machines.setdefault(report["inputs"][name], []).append(report["machine"])
        if len(machines) > 1:
            differences[name] = ", ".join(f"{_short(v)} on {' and '.join(m)}" for v, m in machines.items())
    if not differences:
        return None
    if "unlabelled images" in differences:
        differences.pop("names and sizes of the unlabelled images", None)
    for split in ("training", "validation"):  # other images or classes are other contents, too
        if {f"{split} images", "classes"} & differences.keys():
            differences.pop(f"contents of the {split} data", None)
    text = "; ".join(f"{name.removesuffix('=')}: {values}" for name, values in differences.items())
    return f"the machines differ in {text}: give all of them the same data, models, settings and versions"


def _short(value: str) -> str:
    """Return a value for a message."""
    return value if len(value) <= LENGTH else f"{value[: LENGTH - 3]}..."


def _content(name: Any) -> str:
    """Return the start of a file's hash, or the name of a model that Ultralytics knows."""
    file = Path(str(name))
    return hashlib.sha256(file.read_bytes()).hexdigest()[:DIGITS] if file.is_file() else file.name
