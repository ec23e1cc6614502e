"""Measure finished runs on the images that `fraction` leaves out of the training split."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any


def held_out(data: str, fraction: float, folder: Path) -> Path:
    """Write a data YAML whose validation split is the part of the training split that `fraction` leaves out.

    Args:
        data (str): Data-set YAML.
        fraction (float): Share of the training split that runs train on, its first images by name.
        folder (Path): Folder to write to; it is made.

    Returns:
        (Path): The YAML.
    """
    import yaml
    from ultralytics.cfg import get_cfg

    from ds2d2_yolo.bridge.data.dataset import load_data
    from ds2d2_yolo.bridge.data.images import list_images

    dataset = load_data(get_cfg(overrides={"data": data, "task": "obb"}))
    images = list_images(dataset["train"])
    held_out_images = images[max(1, round(len(images) * fraction)) :]
    folder.mkdir(parents=True, exist_ok=True)
    listed, file = folder / "images.txt", folder / "data.yaml"
    listed.write_text("".join(f"{image}\n" for image in held_out_images), encoding="utf-8")
    split = {"path": str(folder), "train": str(listed), "val": str(listed), "names": dataset["names"]}
    file.write_text(yaml.safe_dump(split), encoding="utf-8")
    return file


def measure_held_out(yaml: Path, compared: Path, teacher: Path, schedule: dict[str, Any]) -> Path:
    """Measure the last checkpoint of every finished run on the held-out images, each run once.

    Args:
        yaml (Path): Data YAML of `held_out`; results.csv is written to its folder.
        compared (Path): Folder of the comparison.
        teacher (Path): Checkpoint of the teacher.
        schedule (dict[str, Any]): Ultralytics training settings of the runs.

    Returns:
        (Path): The raw results.
    """
    from ds2d2_yolo.compare.results import add_results, read_results
    from ds2d2_yolo.compare.state import read_rows, run_folder
    from ds2d2_yolo.compare.summaries.summary import TEACHER_SEED as TEACHER_ROW_SEED
    from ds2d2_yolo.evaluate import evaluate

    results = yaml.parent / "results.csv"
    measured = {(row.arm, row.seed) for row in (read_results(results) if results.is_file() else [])}
    for row in read_rows(compared):
        if row.by != "all" or row.weights == "best" or (row.arm, row.seed) in measured:
            continue
        run = run_folder(compared, row.arm, row.seed)
        file = teacher if row.seed == TEACHER_ROW_SEED else run / "weights/last.pt"
        evaluation = evaluate(file, yaml, **{k: schedule[k] for k in ("imgsz", "batch", "device", "workers")})
        rows = [
            replace(row, data=f"{yaml.parent.name}/{yaml.name}", by=x.by, group=x.group, images=x.images,
                    objects=x.objects, map50=round(x.map50, 6), map50_95=round(x.map50_95, 6))
            for x in evaluation.rows
        ]  # fmt: skip
        add_results(results, rows)
    return results
