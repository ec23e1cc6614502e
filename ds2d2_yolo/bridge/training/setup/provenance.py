"""Provenance of a run, so that it can be reproduced: versions, settings, revision, hashes of its inputs."""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from ds2d2_yolo.bridge.data.dataset import data_hash
from ds2d2_yolo.bridge.models.loading import starting_weights
from ds2d2_yolo.bridge.preflight.prepared_run import PreparedRun
from ds2d2_yolo.bridge.upstream.arguments import ARGS_KEY
from ds2d2_yolo.utils.environment import package_versions, source_revision

RUN_FILE = "run.json"
PACKAGE = Path(str(files("ds2d2_yolo")))
PACKAGES = ("torchvision", "ultralytics", "numpy", "opencv-python", "pillow", "pywavelets", "safetensors")


def provenance_of(run: PreparedRun, amplifier: Path | None) -> dict[str, Any]:
    """Return the provenance of a run.

    Args:
        run (PreparedRun): The run.
        amplifier (Path | None): The run's amplifier.

    Returns:
        (dict[str, Any]): `versions`; `revision` of the package's checkout (None for a wheel) and `code`, SHA-256 over
            its Python files, which shows changes that were not committed; `machine`; `settings` and `ultralytics`, all
            of them; `hashes` of the teacher's weights, of both splits (names and sizes of images, contents of labels),
            of the amplifier's file, of the checkpoint that the student starts from, and of the names and sizes of
            unlabelled images, if there are any.
    """
    args, data = run.args, run.data
    student_weights = starting_weights(args)
    ultralytics_args = {k: v for k, v in vars(args).items() if k != ARGS_KEY}
    return {
        "began": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": sys.argv,
        "versions": {
            "python": platform.python_version(),
            **package_versions(PACKAGES),
            "torch": str(torch.__version__),
        },
        "revision": source_revision(40, mark_dirty=False),
        "code": _code_hash(),
        "machine": {
            "system": platform.platform(),
            "processor": platform.processor() or platform.machine(),
            "threads": torch.get_num_threads(),
            "device": str(run.device),
            "cuda": torch.version.cuda if run.device.type == "cuda" else None,
        },
        "settings": run.settings.as_dict(),
        "ultralytics": json.loads(json.dumps(ultralytics_args, default=str)),
        "hashes": {
            "teacher": run.teacher.sha256,
            "train": data_hash(data),
            "val": data_hash({**data, "train": data[args.split]}),
            "amplifier": _file_hash(amplifier),
            "student": _file_hash(None if student_weights is None else Path(student_weights)),
            **({} if run.unlabelled is None else {"unlabelled": run.unlabelled.sha256}),
        },
    }


def append_provenance(folder: Path, provenance: Mapping[str, Any], resumed: bool) -> str:
    """Return the content of run.json: the provenance of the run, appended to earlier entries if the run is resumed.

    Args:
        folder (Path): The run's folder.
        provenance (Mapping[str, Any]): The new entry.
        resumed (bool): Whether the run is resumed.

    Returns:
        (str): JSON, a list with one entry per session.
    """
    earlier: list[Any] = []
    file = folder / RUN_FILE
    if resumed and file.is_file():
        try:
            earlier = list(json.loads(file.read_text(encoding="utf-8")))
        except ValueError:  # written by something else
            earlier = []
    return json.dumps([*earlier, provenance], indent=2, ensure_ascii=False) + "\n"


def _code_hash() -> str:
    """Return the hash of the package's Python files."""
    digest = hashlib.sha256()
    for file in sorted(PACKAGE.rglob("*.py")):
        digest.update(file.relative_to(PACKAGE).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()


def _file_hash(file: Path | None) -> str | None:
    """Return the hash of a file, None where there is none."""
    return hashlib.sha256(file.read_bytes()).hexdigest() if file is not None and file.is_file() else None
