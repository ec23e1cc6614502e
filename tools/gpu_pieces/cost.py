"""Time and peak memory of a step against plain, floor and Ultralytics' distillation, by `bench_cost`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench_cost import FLOOR, PLAIN, UPSTREAM, Case, measure

from ds2d2_yolo.config.resources import resolve_model
from gpu_pieces.runner import Save

VARIANTS = (PLAIN, FLOOR, UPSTREAM, "explicit only", "imfu only", "all four terms", "all four, 1/2 of the images")
SMALL_VARIANTS = (PLAIN, FLOOR, "all four terms")
COLUMNS = ("ms", f"over {FLOOR}", f"over {UPSTREAM}", "FLOPs say", "MiB", "reason")


def step_cost(options: Mapping[str, Any], save: Save) -> dict[str, Any]:
    """Measure the variants at one image size.

    Args:
        options (Mapping[str, Any]): Options of the tool with 'imgsz', and 'small_imgsz' for the small form.
        save (Save): Not used: variants take turns, so that there is nothing before the end.

    Returns:
        (dict[str, Any]): 'rows' by variant; 'over plain student' is the time over that of the plain step.
    """
    if options["small"]:
        models, size, batch = ("yolov8-micro-obb.yaml", "yolov8-pico-obb.yaml"), options["small_imgsz"], 2
    else:
        models, size, batch = ("yolov8s.yaml", "yolov8n.yaml"), options["imgsz"], options["batch"]
    device = "cpu" if options["device"] == "cpu" else f"cuda:{options['device']}"
    teacher, student = map(resolve_model, models)
    case = Case(teacher, student, size, batch, 50, 15, device, threads=1 if options["small"] else 0)
    repeats, variants = (1, SMALL_VARIANTS) if options["small"] else (15, VARIANTS)
    measured, _ = measure(case, repeats, False, variants)
    rows = {
        name: {
            **({f"over {PLAIN}": row["ms"] / measured[PLAIN]["ms"]} if "ms" in row else {}),
            **{column: row[column] for column in COLUMNS if column in row},
        }
        for name, row in measured.items()
    }
    return {"teacher": models[0], "student": models[1], "imgsz": size, "batch": batch, "rows": rows}
