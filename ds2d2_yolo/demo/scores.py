"""Size and accuracy of the models of a demonstration, and their table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ds2d2_yolo.bridge.inference.benchmark import gflops
from ds2d2_yolo.bridge.inference.export import open_checkpoint
from ds2d2_yolo.evaluate import evaluate
from ds2d2_yolo.utils.tables import markdown_table

HEADER = ("model", "architecture", "parameters", "GFLOPs", "file", "mAP50", "mAP50-95", "of the teacher's")
LABELS = {"teacher": "teacher", "plain": "plain student", "distilled": "distilled student"}


@dataclass(frozen=True)
class ModelScores:
    """Size and accuracy of a checkpoint.

    Attributes:
        parameters (int): Number of parameters.
        gflops (float): GFLOPs of a forward pass at the image size of the measurement.
        file_mb (float): Size of the checkpoint in MB (1e6 bytes).
        map50 (float): mAP50 on the validation split, 0 to 1.
        map50_95 (float): mAP50-95 on the validation split, 0 to 1.
    """

    parameters: int
    gflops: float
    file_mb: float
    map50: float
    map50_95: float


def measure(weights: Path, data: str, imgsz: int, **val_keys: Any) -> ModelScores:
    """Measure a checkpoint on the validation split.

    Args:
        weights (Path): The checkpoint.
        data (str): Data-set YAML.
        imgsz (int): Image size in pixels.
        **val_keys (Any): Further settings of `evaluate`; None stands for the default.

    Returns:
        (ModelScores): Size and mAP.
    """
    keys = {k: v for k, v in val_keys.items() if v is not None}
    row = evaluate(weights, data, imgsz=imgsz, split="val", **keys).row("all", "all")
    parameters = open_checkpoint(str(weights), "demo").parameters
    return ModelScores(parameters, gflops(weights, imgsz), weights.stat().st_size / 1e6, row.map50, row.map50_95)


def scores_table(scores: Mapping[str, ModelScores], models: Mapping[str, str]) -> str:
    """Return the table of the three models; the last column is the share of the teacher's mAP50-95.

    Args:
        scores (Mapping[str, ModelScores]): Scores of 'teacher', 'plain' and 'distilled'.
        models (Mapping[str, str]): Model YAML of each.

    Returns:
        (str): Markdown.
    """
    teacher = scores["teacher"].map50_95
    rows = [_cells(LABELS[k], Path(models[k]).stem, scores[k], teacher) for k in LABELS]
    return markdown_table(HEADER, rows, text_columns=2)


def _cells(label: str, model: str, s: ModelScores, teacher: float) -> tuple[str, ...]:
    """Return the cells of one model."""
    share = f"{s.map50_95 / teacher:.0%}" if teacher > 0 else "-"
    return (
        label, model, f"{s.parameters / 1e6:.2f} M", f"{s.gflops:.1f}", f"{s.file_mb:.1f} MB", f"{s.map50:.3f}",
        f"{s.map50_95:.3f}", share,
    )  # fmt: skip
