"""The child process of one job: `python -m ds2d2_yolo.compare.launchers.child TASK.json RESULT.json`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from filelock import FileLock

from ds2d2_yolo.compare.launchers.local import die_with_parent
from ds2d2_yolo.compare.unlabelled import FOLDER, PLAIN_STUDENT, PSEUDO_LABELS
from ds2d2_yolo.utils.child_process import serve

TASK_FILE = "task.json"
RESULT_FILE = "result.json"
LOCK_TIMEOUT_S = 60  # a process whose parent was killed a moment ago has ended by then
VAL_KEYS = (
    "imgsz", "batch", "workers", "conf", "iou", "max_det", "agnostic_nms", "single_cls", "classes", "split", "nms",
)  # fmt: skip


def run_task(folder: Path, task: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Do the work of a job.

    Args:
        folder (Path): Folder of the job.
        task (Mapping[str, Any]): Task that `plan.make_jobs` made, with its `device`.

    Returns:
        (list[dict[str, Any]]): Rows of raw results (see `RunResult`), or one row about an amplifier.
    """
    from ds2d2_yolo.bridge.upstream.devices import cpu_threads

    keys = {**task["keys"], "device": task["device"]}
    with cpu_threads():
        if task["kind"] == "amplifier":
            return _train_amplifier(task, keys)
        if task["kind"] == FOLDER:
            return _label_images(folder, task, keys)
        if task["kind"] == "teacher":
            return _measure(Path(task["subjects"]["teacher"]), "file", task, keys, {})
        return _train(folder, task, keys)


def read_result(folder: Path) -> list[dict[str, Any]]:
    """Return the result in the folder of a job, empty if there is none."""
    file = folder / RESULT_FILE
    rows: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    return rows


def _train_amplifier(task: Mapping[str, Any], keys: dict[str, Any]) -> list[dict[str, Any]]:
    """Train the amplifier that several runs share, or find a stored one; its mAP is part of the result."""
    from ds2d2_yolo.bridge.training.amplify import amplify
    from ds2d2_yolo.bridge.training.obtain_amplifier import NOT_PASSED

    passed = {k: v for k, v in keys.items() if k not in NOT_PASSED or k == "epochs"}
    start = time.time()
    amplifier = amplify(task["subjects"]["teacher"], task["subjects"]["data"], **{**passed, **task["settings"]})
    trained = amplifier.file.stat().st_mtime >= start
    seconds = round(time.time() - start, 1) if trained else 0.0
    return [{"file": str(amplifier.file), "reached": amplifier.card.reached, "seconds": seconds}]


def _label_images(folder: Path, task: Mapping[str, Any], keys: dict[str, Any]) -> list[dict[str, Any]]:
    """Write the teacher's detections on the unlabelled images as labels; the number of boxes is part of the result."""
    from ds2d2_yolo.bridge.training.unlabelled.pseudo_labels import write_pseudo_labels

    start = time.time()
    labels = write_pseudo_labels(task["subjects"]["teacher"], task["subjects"]["data"], keys, task["settings"], folder)
    reached = f"{labels.boxes} boxes on {labels.number} images"
    seconds = round(time.time() - start, 1)
    return [{"file": str(labels.file), "images": str(labels.images), "reached": reached, "seconds": seconds}]


def _train(folder: Path, task: Mapping[str, Any], keys: dict[str, Any]) -> list[dict[str, Any]]:
    """Train a run to its end and measure its checkpoints."""
    from ds2d2_yolo.bridge.training.compared.train_arm import train_arm

    train_keys, settings = {**keys, **task.get("train_keys", {})}, task["settings"]
    source = read_result(Path(task["source"]))[0] if task["source"] else {"seconds": 0.0}
    if task["kind"] == PSEUDO_LABELS:
        settings = {**settings, **PLAIN_STUDENT, "unlabelled": source["images"]}
    parallel = task["row"]["parallel"]
    notes = train_arm(task["kind"], folder, task["student"], train_keys, task["subjects"], settings, parallel)
    columns = {
        "epochs_trained": len(notes.epochs),
        "train_seconds": round(notes.train_seconds, 2),
        "step_seconds": round(notes.step_seconds, 5),
        "peak_memory_mb": round(notes.peak_memory_mb, 1),
        "parallel": notes.parallel,
        "sessions": notes.sessions,
        "initial_weights": notes.initial_weights,
        "first_epoch": notes.first_epoch,
        "amplifier_seconds": source["seconds"],
    }
    weights = folder / "weights"
    return [row for w in ("last", "best") for row in _measure(weights / f"{w}.pt", w, task, keys, columns)]


def _measure(
    file: Path, weights: str, task: Mapping[str, Any], keys: dict[str, Any], columns: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the raw results of a checkpoint."""
    from ds2d2_yolo.bridge.upstream.hardware import hardware
    from ds2d2_yolo.evaluate import evaluate

    val = {k: keys[k] for k in (*VAL_KEYS, "device") if keys.get(k) is not None}
    # without it each checkpoint would be measured at its own size, and a teacher may have another than the students
    val["imgsz"] = task["row"]["imgsz"]
    evaluation = evaluate(file, task["subjects"]["data"], **val)
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    shared = {**task["row"], **columns, "hardware": hardware(keys["device"], task["threads"]), "finished": now}
    return [
        {
            **shared, "weights": weights, "by": row.by, "group": row.group, "images": row.images,
            "objects": row.objects, "map50": round(row.map50, 6), "map50_95": round(row.map50_95, 6),
        }
        for row in evaluation.rows
    ]  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    """Do the work of a task file, while no other process works in its folder.

    Args:
        arguments (Sequence[str]): Files of the task and of the result.

    Returns:
        (int): Exit status, see `serve`.
    """
    die_with_parent()
    folder = Path(arguments[0]).parent

    def work(task: dict[str, Any]) -> list[dict[str, Any]]:
        with FileLock(folder / ".lock", timeout=LOCK_TIMEOUT_S):
            return run_task(folder, task)

    return serve(work, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
