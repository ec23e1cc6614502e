"""A distillation of two epochs that is killed in the second one and resumed."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ds2d2_yolo import distill
from gpu_pieces.runner import Save
from gpu_pieces.training import WITHOUT_AMPLIFIER, finite_terms, training_keys

NAME = "cut"


def resume(options: Mapping[str, Any], save: Save) -> dict[str, Any]:
    """Train in a process that kills itself in the second epoch, then resume here.

    Args:
        options (Mapping[str, Any]): Options of the tool.
        save (Save): Stores what is known so far.

    Returns:
        (dict[str, Any]): Seconds of both parts, epochs, mAP50 of the last epoch, terms.

    Raises:
        ValueError: If the first process ends in another way, an epoch is missing or repeated, or a term is not finite.
    """
    folder = Path(options["folder"]) / NAME
    shutil.rmtree(folder, ignore_errors=True)
    keys = {**training_keys(options, NAME), "epochs": 2}
    if options["small"]:
        terms: tuple[str, ...] = WITHOUT_AMPLIFIER
    else:
        del keys["imhi"]
        keys["amplifier_epochs"], terms = 1, (*WITHOUT_AMPLIFIER, "imhi")
    began = time.monotonic()
    process = multiprocessing.get_context("spawn").Process(target=train_until_cut, args=(keys,))
    process.start()
    process.join()
    if process.exitcode != -signal.SIGKILL:
        raise ValueError(f"the first training ended with status {process.exitcode} before it was cut")
    cut = time.monotonic()
    save({"cut after s": cut - began})
    distill(resume=str(folder), device=options["device"])
    with (folder / "results.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    epochs = [int(row["epoch"]) for row in rows]
    sessions = len(json.loads((folder / "run.json").read_text(encoding="utf-8")))
    figures = {
        "cut after s": cut - began,
        "resumed for s": time.monotonic() - cut,
        "epochs": epochs,
        "sessions": sessions,
        "mAP50": float(rows[-1]["metrics/mAP50(B)"]),
    }
    save(figures)
    if epochs != [1, 2] or sessions != 2:
        raise ValueError(f"results.csv has the epochs {epochs}, run.json {sessions} sessions")
    return {**figures, **finite_terms(folder, terms)}


def train_until_cut(keys: Mapping[str, Any]) -> None:
    """Train, and kill this process after the first batch of the second epoch."""

    def cut(trainer: Any) -> None:
        if trainer.epoch == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    distill(**keys, callbacks={"on_train_batch_end": cut})
