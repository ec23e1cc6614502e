"""Jobs that make what the runs of a comparison need: amplifiers and pseudo-labels, each of them once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ds2d2_yolo.compare.arms import Arm
from ds2d2_yolo.compare.launchers.child import read_result
from ds2d2_yolo.compare.schedule import Job
from ds2d2_yolo.compare.unlabelled import FOLDER, PSEUDO_LABELS
from ds2d2_yolo.config.recipes import resolve_settings

AMPLIFIER_KEYS = ("wavelet", "teacher_channels", "amplifier_epochs", "teacher_imgsz")


def amplifier_job(
    arm: Arm, settings: Mapping[str, Any], base: Mapping[str, Any], keys: Mapping[str, Any], folder: Path
) -> Job | None:
    """Return the job that trains an arm's amplifier; None if it needs none or names a file.

    Args:
        arm (Arm): The arm.
        settings (Mapping[str, Any]): Its settings.
        base (Mapping[str, Any]): Entries of every task.
        keys (Mapping[str, Any]): Ultralytics' settings of the job.
        folder (Path): Folder of the comparison.

    Returns:
        (Job | None): The job.
    """
    if arm.kind != "ds2d2":
        return None
    resolved = resolve_settings(settings)
    if "imhi" not in resolved.active or resolved.amplifier:
        return None
    settings = {k: v for k in AMPLIFIER_KEYS if (v := getattr(resolved, k)) is not None}
    name = "amplifier " + " ".join(f"{k}={v}" for k, v in settings.items())
    place = folder / "amplifiers" / "-".join("".join(c for c in str(v) if c.isalnum()) for v in settings.values())
    return Job(name, place, {**base, "kind": "amplifier", "settings": settings, "keys": dict(keys)})


def pseudo_label_job(
    arm: Arm, settings: Mapping[str, Any], base: Mapping[str, Any], keys: Mapping[str, Any], folder: Path
) -> Job | None:
    """Return the job that writes the teacher's detections as labels; None for an arm that needs none.

    Args:
        arm (Arm): The arm.
        settings (Mapping[str, Any]): Its settings.
        base (Mapping[str, Any]): Entries of every task.
        keys (Mapping[str, Any]): Ultralytics' settings of the job.
        folder (Path): Folder of the comparison.

    Returns:
        (Job | None): The job.
    """
    if arm.kind != PSEUDO_LABELS:
        return None
    return Job("pseudo-labels", folder / FOLDER, {**base, "kind": FOLDER, "settings": settings, "keys": dict(keys)})


def is_stored(source: Job) -> bool:
    """Return whether an amplifier or pseudo-labels were made in an earlier session and the file still exists.

    Args:
        source (Job): Job that makes it.

    Returns:
        (bool): True if the job does not have to run.
    """
    return any(Path(row["file"]).is_file() for row in read_result(source.folder))
