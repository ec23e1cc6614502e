"""The process of one job: `python -m ds2d2_yolo.compare.child TASK.json DEVICE`; what it finds lies in result.json."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from filelock import FileLock

from ds2d2_yolo.compare.schedule import die_with_parent
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.utils.atomic_files import write_json

TASK = "task.json"
RESULT = "result.json"
LOCK_SECONDS = 60  # a process whose parent was killed a moment ago is gone by then
VAL_KEYS = (
    "imgsz", "batch", "workers", "conf", "iou", "max_det", "agnostic_nms", "single_cls", "classes", "split", "nms",
)  # fmt: skip


def run_task(folder: Path, task: Mapping[str, Any], device: str) -> None:
    """Do a job and leave its result.

    Args:
        folder (Path): Its folder.
        task (Mapping[str, Any]): What to do; `plan.jobs_of` writes it.
        device (str): Where.
    """
    from ds2d2_yolo.bridge.upstream.devices import cpu_threads

    keys = {**task["keys"], "device": device}
    with cpu_threads():
        if task["kind"] == "amplifier":
            rows = _amplify(task, keys)
        elif task["kind"] == "teacher":
            rows = _measure(Path(task["subjects"]["teacher"]), "file", task, keys, {})
        else:
            rows = _train(folder, task, keys)
    write_json(folder / RESULT, rows)


def read_result(folder: Path) -> list[dict[str, Any]]:
    """Return the result that a job left in its folder, nothing if it left none."""
    file = folder / RESULT
    found: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    return found


def _amplify(task: Mapping[str, Any], keys: dict[str, Any]) -> list[dict[str, Any]]:
    """Train the amplifier that several runs need, or find the one that is kept; its own mAP is the result."""
    from ds2d2_yolo.bridge.training.amplify import amplify
    from ds2d2_yolo.bridge.training.obtain_amplifier import NOT_PASSED

    passed = {k: v for k, v in keys.items() if k not in NOT_PASSED or k == "epochs"}
    began = time.time()
    found = amplify(task["subjects"]["teacher"], task["subjects"]["data"], **{**passed, **task["settings"]})
    trained = found.file.stat().st_mtime >= began
    seconds = round(time.time() - began, 1) if trained else 0.0
    return [{"file": str(found.file), "reached": found.card.reached, "seconds": seconds}]


def _train(folder: Path, task: Mapping[str, Any], keys: dict[str, Any]) -> list[dict[str, Any]]:
    """Train a run to its end and measure what it left."""
    from ds2d2_yolo.bridge.training.compared_run import train_arm

    notes = train_arm(
        task["kind"], folder, task["student"], keys, task["subjects"], task["settings"], task["row"]["parallel"]
    )
    facts = {
        "epochs_trained": len(notes.epochs),
        "train_seconds": round(notes.train_seconds, 2),
        "step_seconds": round(notes.step_seconds, 5),
        "peak_memory_mb": round(notes.peak_memory_mb, 1),
        "parallel": notes.parallel,
        "sessions": notes.sessions,
        "initial_weights": notes.initial_weights,
        "first_epoch": notes.first_epoch,
        "amplifier_seconds": read_result(Path(task["amplifier"]))[0]["seconds"] if task["amplifier"] else 0.0,
    }
    weights = folder / "weights"
    return [row for w in ("last", "best") for row in _measure(weights / f"{w}.pt", w, task, keys, facts)]


def _measure(
    file: Path, weights: str, task: Mapping[str, Any], keys: dict[str, Any], facts: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the raw results of a checkpoint."""
    from ds2d2_yolo.bridge.upstream.hardware import hardware
    from ds2d2_yolo.evaluate import evaluate

    val = {k: keys[k] for k in (*VAL_KEYS, "device") if keys.get(k) is not None}
    # a checkpoint's own otherwise, and a teacher may have another than the students
    val["imgsz"] = task["row"]["imgsz"]
    found = evaluate(file, task["subjects"]["data"], **val)
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    shared = {**task["row"], **facts, "hardware": hardware(keys["device"], task["threads"]), "finished": now}
    return [
        {
            **shared, "weights": weights, "by": row.by, "group": row.group, "images": row.images,
            "objects": row.objects, "map50": round(row.map50, 6), "map50_95": round(row.map50_95, 6),
        }
        for row in found.rows
    ]  # fmt: skip


def main(file: str, device: str) -> int:
    """Do the job of a task file; a mistake ends in one line, which the parent repeats."""
    die_with_parent()
    path = Path(file)
    try:
        with FileLock(path.parent / ".lock", timeout=LOCK_SECONDS):
            run_task(path.parent, json.loads(path.read_text(encoding="utf-8")), device)
    except DS2D2Error as e:
        print(e)
        return e.status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
