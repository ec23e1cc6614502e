"""Run the comparison of docs/evidence.md: HIT-UAV with oriented boxes on a CPU, from nothing to the tables.

The teacher is trained first, unless its folder holds one; then every named arm with every named seed, a process each.
The same command goes on after an interruption, and arms and seeds may be added to a folder later.

    python tools/evidence.py hituav/data.yaml --arms ds2d2 --seeds 0      # one arm and seed, and the teacher
    python tools/evidence.py hituav/data.yaml                             # everything
    ds2d2-yolo compare results=docs/evidence/hituav.csv                   # the tables of what was measured, in seconds
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

TEACHER, STUDENT = "yolov8s-obb.yaml", "yolov8n-obb.yaml"
ARMS = "teacher,plain,ds2d2,distill_model,explicit,implicit"
SCHEDULE: dict[str, Any] = {
    "imgsz": 320, "fraction": 0.5, "epochs": 20, "batch": 8, "optimizer": "AdamW", "lr0": 0.001, "nbs": 8,
    "warmup_epochs": 1, "close_mosaic": 5, "workers": 1, "device": "cpu", "plots": False,
}  # fmt: skip
TEACHER_SEED = 0


def train_teacher(data: Path, folder: Path, schedule: dict[str, Any]) -> Path:
    """Train the teacher as plain Ultralytics does, or find it; a training that was cut off goes on.

    Args:
        data (Path): Data-set YAML.
        folder (Path): Folder of the training.
        schedule (dict[str, Any]): Ultralytics training settings.

    Returns:
        (Path): Its best checkpoint.
    """
    from ultralytics import YOLO

    best, last, done = (folder / name for name in ("weights/best.pt", "weights/last.pt", "done"))
    if not done.exists():
        keys = {"project": str(folder.parent), "name": folder.name, "exist_ok": True}
        if last.exists():
            YOLO(last).train(resume=True)
        else:
            YOLO(TEACHER).train(data=str(data), seed=TEACHER_SEED, pretrained=False, **schedule, **keys)
        done.touch()
    return best


def baseline_of(arms: str, folder: Path) -> str:
    """Return the arm that differences are taken from: plain, or the first of the named ones while there is no plain.

    Args:
        arms (str): As `ds2d2-yolo compare` takes them.
        folder (Path): The comparison's folder, there or not.

    Returns:
        (str): Its name.
    """
    from ds2d2_yolo.compare.arms import read_arms
    from ds2d2_yolo.compare.state import rows_in

    trained = [arm.name for arm in read_arms(arms) if arm.kind != "teacher"]
    there = {*trained, *(row.arm for row in rows_in(folder))}
    return "plain" if "plain" in there or not trained else trained[0]


def main(arguments: list[str] | None = None) -> None:
    """Parse the arguments, train what is missing and print the tables.

    Args:
        arguments (list[str] | None): Of the command line, None is this process's.
    """
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, help="data-set YAML of HIT-UAV with oriented boxes")
    parser.add_argument("--arms", default=ARMS, help="as ds2d2-yolo compare takes them")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, default=Path("runs/evidence"))
    parser.add_argument("--parallel", type=int, default=1, help="runs at the same time, one CPU thread each")
    parser.add_argument("--epochs", type=int, default=SCHEDULE["epochs"], help="fewer: another experiment, to try this")
    given = parser.parse_args(arguments)
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: the teacher depends on it in rounding

    from ds2d2_yolo.compare import compare

    folder, schedule = given.folder.resolve(), {**SCHEDULE, "epochs": given.epochs}
    baseline = baseline_of(given.arms, folder / "compare")  # a wrong arm is refused before the teacher's training
    teacher = train_teacher(given.data.resolve(), folder / "teacher", schedule)
    print(
        compare(
            teacher=str(teacher), student=STUDENT, data=str(given.data.resolve()), arms=given.arms, seeds=given.seeds,
            parallel=given.parallel, threads=1, baseline=baseline, project=str(folder), name="compare", **schedule,
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
