"""The sheets of `explain` at the end of a distilled run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ultralytics.utils import LOGGER, RANK

from ds2d2_yolo.bridge.inference.explain import explain_pair
from ds2d2_yolo.bridge.upstream.messages import first_line
from ds2d2_yolo.explanation.options import ExplainOptions
from ds2d2_yolo.explanation.page import write_explanation

if TYPE_CHECKING:
    from ds2d2_yolo.bridge.training.trainer import DS2D2Trainer

FOLDER = "explain"  # in the folder of the run


def draw_final_sheets(trainer: DS2D2Trainer) -> Path | None:
    """Draw the sheets of a run's last checkpoint, with `plots=True`. A failure is a warning: the run is finished.

    A run without an active term or without a class that teacher and data share has none.

    Args:
        trainer (DS2D2Trainer): After its training, with plain checkpoints.

    Returns:
        (Path | None): The page; None if there is none.
    """
    if RANK not in {-1, 0} or not trainer.args.plots or trainer.distiller is None or not trainer.last.is_file():
        return None
    args, settings = trainer.args, trainer.run.settings
    if args.single_cls or not settings.active or not trainer.run.class_map.pairs:
        return None
    if settings.teacher_imgsz is not None:
        LOGGER.info("DS2D2: the run has no sheets: explain shows both models at one size, and teacher_imgsz= is set")
        return None
    try:
        options = ExplainOptions(
            teacher=settings.teacher, student=str(trainer.last), data=str(args.data), wavelet=settings.wavelet,
            levels=settings.levels, teacher_channels=settings.teacher_channels,
        )  # fmt: skip
        explanation, _ = explain_pair(options, {"split": args.split, "imgsz": args.imgsz}, trainer.device)
        files = write_explanation(explanation, trainer.save_dir / FOLDER)
    except Exception as e:  # whatever a picture fails on, the checkpoints stand
        LOGGER.warning(f"DS2D2: the run has no sheets: {first_line(e)}; to repeat it: ds2d2-yolo explain")
        return None
    LOGGER.info(f"DS2D2: {files}")
    return files.page
