"""The table of a demonstration: teacher, plain and distilled student side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ds2d2_yolo.bridge.inference.plain_model import Measured

HEAD = ("model", "architecture", "parameters", "GFLOPs", "file", "mAP50", "mAP50-95", "of the teacher's")
LABELS = {"teacher": "teacher", "plain": "plain student", "distilled": "distilled student"}


def table(measured: Mapping[str, Measured], models: Mapping[str, str]) -> str:
    """Return the table in Markdown, its columns aligned so that it reads on a screen too.

    Args:
        measured (Mapping[str, Measured]): Of 'teacher', 'plain' and 'distilled'.
        models (Mapping[str, str]): Model YAML of each.

    Returns:
        (str): A head, a rule and three rows. The last column is the share of the teacher's mAP50-95.
    """
    best = measured["teacher"].map50_95
    rows = [_row(LABELS[k], Path(models[k]).stem, measured[k], best) for k in LABELS]
    widths = [max(len(r[i]) for r in (HEAD, *rows)) for i in range(len(HEAD))]
    rule = [("-" * w if i < 2 else "-" * (w - 1) + ":") for i, w in enumerate(widths)]
    return "\n".join("| " + " | ".join(_aligned(r, widths)) + " |" for r in (HEAD, rule, *rows))


def _row(label: str, model: str, m: Measured, best: float) -> tuple[str, ...]:
    """Return the cells of one model."""
    share = f"{m.map50_95 / best:.0%}" if best > 0 else "-"
    return (
        label, model, f"{m.parameters / 1e6:.2f} M", f"{m.gflops:.1f}", f"{m.file_mb:.1f} MB", f"{m.map50:.3f}",
        f"{m.map50_95:.3f}", share,
    )  # fmt: skip


def _aligned(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Pad the cells of a row, words to the right and numbers to the left."""
    return [x.ljust(w) if i < 2 else x.rjust(w) for i, (x, w) in enumerate(zip(row, widths, strict=True))]
