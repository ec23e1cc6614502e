"""Show where the terms of a teacher and a student act: gradients by level, adapters, assignment and weights.

Measures some training images without augmentation, in seconds to a minute on a CPU; nothing is trained. The student is
a model YAML (a random start), a checkpoint, or the last.pt of a distillation that is not finished, whose adapters are
taken. Settings of the run follow as key=value; `imhi` is measured with `amplifier=` only.

    python tools/probe_terms.py teacher.pt yolov8n-obb.yaml aerial-scenes.yaml
    python tools/probe_terms.py teacher.pt runs/obb/train/weights/last.pt my-data.yaml weight_map=score --csv terms.csv
"""

from __future__ import annotations

import argparse
from pathlib import Path

import yaml

from ds2d2_yolo.utils.tables import markdown_table, write_csv
from ds2d2_yolo.utils.threads import shorten_openmp_spin

LABELS = {
    "gradient": "squared gradient, part of the level: {}",
    "weight": "measured weight of the level: {}",
    "cosine": "cosine with the task loss's gradient: {}",
    "explained": "R^2 of the adapted features",
    "scores": "teacher's scores, part of the level",
    "object_cells": "cells that hold an object",
    "object_weight": "DISW's weight on those cells",
}

# columns of the assignment: the sum that is divided by the number of objects, and decimals
MEANS = {
    "positives per object": ("positives", 2),
    "objects without": ("without", 3),
    "mean best target": ("best_targets", 3),
}


def tables(rows: list[tuple[str, str, float | None, float]]) -> str:
    """Return the Markdown tables of the levels and of the assignment.

    Args:
        rows (list[tuple[str, str, float | None, float]]): See `Probe.rows`.

    Returns:
        (str): Both tables, with an empty line between them.
    """
    strides = list(dict.fromkeys(stride for *_, stride, _ in rows if stride is not None))
    levels: dict[str, list[str]] = {}
    sums: dict[str, dict[str, float]] = {}
    for measure, name, stride, value in rows:
        if stride is None:
            sums.setdefault(name, {})[measure] = value
        elif (measure, name) != ("cosine", "task"):
            levels.setdefault(LABELS[measure].format(name), []).append(f"{value:.3f}")
    objects = [
        [
            f"predictions of the {name}",
            f"{s['objects']:.0f}",
            *(f"{s[k] / max(s['objects'], 1):.{digits}f}" for k, digits in MEANS.values()),
        ]
        for name, s in sums.items()
    ]
    by_level = markdown_table(
        ["by stride", *(f"{s:g}" for s in strides)], [[label, *cells] for label, cells in levels.items()]
    )
    return by_level + "\n\n" + markdown_table(["assignment with the", "objects", *MEANS], objects)


def main(argv: list[str] | None = None) -> None:
    """Measure and print.

    Args:
        argv (list[str] | None): Of the command line, None is this process's.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("teacher", help="trained checkpoint")
    parser.add_argument("student", help="model YAML, checkpoint, or last.pt of a distillation that is not finished")
    parser.add_argument("data", help="data-set YAML")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings of the run")
    parser.add_argument("--images", type=int, default=24, help="training images (default: 24)")
    parser.add_argument("--imgsz", type=int, default=320, help="side of the images in pixels (default: 320)")
    parser.add_argument("--batch", type=int, default=8, help="images in a batch (default: 8)")
    parser.add_argument("--seed", type=int, default=0, help="seed of images, student and adapters (default: 0)")
    parser.add_argument("--csv", type=Path, help="file for the values, one a row")
    arguments = parser.parse_intermixed_args(argv)
    if wrong := [s for s in arguments.settings if "=" not in s]:
        parser.error(f"settings are key=value: {', '.join(wrong)}")
    settings = {key: yaml.safe_load(value) for key, _, value in (s.partition("=") for s in arguments.settings)}
    shorten_openmp_spin()  # before torch is imported

    from ds2d2_yolo.bridge.training.probed_run import probe
    from ds2d2_yolo.errors import DS2D2Error

    sizes = {name: getattr(arguments, name) for name in ("images", "imgsz", "batch", "seed")}
    try:
        result = probe(arguments.teacher, arguments.student, arguments.data, **sizes, **settings)
    except DS2D2Error as e:
        raise SystemExit(str(e)) from e
    print(
        f"{arguments.student} from {arguments.teacher}: {result.images} images of {arguments.imgsz} px\n\n"
        f"{tables(result.rows())}"
    )
    if arguments.csv:
        write_csv(arguments.csv, ("measure", "of", "stride", "value"), result.rows())


if __name__ == "__main__":
    main()
