"""Jobs that make what the runs of a comparison need: amplifiers and pseudo-labels, each of them once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ds2d2_yolo.compare.arms import Arm
from ds2d2_yolo.compare.launchers.child import TASK_FILE, read_result
from ds2d2_yolo.compare.schedule import Job
from ds2d2_yolo.compare.unlabelled import FOLDER, PSEUDO_LABELS
from ds2d2_yolo.config.recipes import resolve_settings

AMPLIFIER_KEYS = ("wavelet", "teacher_channels", "amplifier_epochs", "teacher_imgsz")
IDENTITY = "identity"  # of a task: everything that its result depends on


def needed_job(
    arm: Arm, settings: Mapping[str, Any], task: Mapping[str, Any], folder: Path, identity: str
) -> Job | None:
    """Return the job that makes what an arm's runs need: its amplifier, or the teacher's detections as labels.

    Args:
        arm (Arm): The arm.
        settings (Mapping[str, Any]): Its settings.
        task (Mapping[str, Any]): Entries of the job's task that do not depend on the arm.
        folder (Path): Folder of the comparison.
        identity (str): Hash of everything that the arm's results depend on.

    Returns:
        (Job | None): The job; None for an arm that needs nothing, or that names a file.
    """
    if arm.kind == PSEUDO_LABELS:
        more = {"kind": FOLDER, "settings": dict(settings), IDENTITY: identity}
        return Job("pseudo-labels", folder / FOLDER, {**task, **more})
    if arm.kind != "ds2d2":
        return None
    resolved = resolve_settings(settings)
    if "imhi" not in resolved.active or resolved.amplifier:
        return None
    values = {k: v for k in AMPLIFIER_KEYS if (v := getattr(resolved, k)) is not None}
    name = "amplifier " + " ".join(f"{k}={v}" for k, v in values.items())
    place = folder / "amplifiers" / "-".join("".join(c for c in str(v) if c.isalnum()) for v in values.values())
    return Job(name, place, {**task, "kind": "amplifier", "settings": values})


def is_stored(source: Job) -> bool:
    """Return whether an amplifier or pseudo-labels were made in an earlier session and the file still exists.

    Pseudo-labels have to be those of this comparison. An amplifier need not: a run looks it up by its origin.

    Args:
        source (Job): Job that makes it.

    Returns:
        (bool): True if the job does not have to run.
    """
    if not any(Path(row["file"]).is_file() for row in read_result(source.folder)):
        return False
    if IDENTITY not in source.task:
        return True
    earlier = json.loads((source.folder / TASK_FILE).read_text(encoding="utf-8"))
    return bool(earlier.get(IDENTITY) == source.task[IDENTITY])
