"""The columns of the terms reach experiment loggers, and nothing else of a run."""

from __future__ import annotations

import csv
import importlib
import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ds2d2_yolo import DS2D2Trainer
from ds2d2_yolo.bridge.training.hooks.logger_columns import EVENT, LoggerColumns, loggable

METRICS = {"metrics/mAP50(B)": 0.5}
COLUMNS = {"gain/exlo": 2.0, "share/exlo": 0.25, "share/exlo@8": 0.125, "share/exhi": math.nan}
LOGGED = {"gain/exlo": 2.0, "share/exlo": 0.25, "share/exlo_8": 0.125}


@pytest.fixture
def at_epoch_end(tmp_path: Path) -> Callable[[Callable[[Any], None]], Any]:
    """Run a callback at the end of the first epoch of a stand-in for a trainer, and return the trainer."""

    def run(callback: Callable[[Any], None]) -> Any:
        trainer = SimpleNamespace(metrics=dict(METRICS), epoch=0, save_dir=tmp_path, _mlflow_active=True)
        logged = LoggerColumns(trainer)
        logged.store(COLUMNS)
        with logged.shown(EVENT):
            callback(trainer)
        return trainer

    return run


def logger_module(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import Ultralytics' callbacks of a logger, which it switches off under pytest."""
    monkeypatch.setattr("ultralytics.utils.TESTS_RUNNING", False)
    name = f"ultralytics.utils.callbacks.{name}"
    monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module(name)


def test_names_are_those_that_every_logger_takes() -> None:
    assert loggable({"a/b-c_d.e f": 1.0, "a@8(ä)": 2.0, "n": math.nan, "i": math.inf}) == {
        "a/b-c_d.e f": 1.0,
        "a_8___": 2.0,
    }


def test_metrics_have_the_columns_at_the_end_of_their_epoch_alone() -> None:
    trainer = SimpleNamespace(metrics=METRICS)
    logged = LoggerColumns(trainer)
    logged.store(COLUMNS)
    for event, seen in (("on_train_epoch_end", METRICS), (EVENT, {**METRICS, **LOGGED}), (EVENT, METRICS)):
        with logged.shown(event):
            assert trainer.metrics == seen
        assert trainer.metrics == METRICS


def test_a_callback_may_change_metrics_or_fail() -> None:
    trainer = SimpleNamespace(metrics=METRICS)
    logged = LoggerColumns(trainer)
    logged.store(COLUMNS)

    def callback() -> None:
        trainer.metrics["new"] = 1.0
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), logged.shown(EVENT):
        callback()
    assert trainer.metrics == {**METRICS, "new": 1.0}


def test_a_run_shows_its_loggers_what_results_csv_has(tiny_trainer: Callable[..., DS2D2Trainer]) -> None:
    """Without a validation in every epoch, Ultralytics hands the same metrics to the next row."""
    seen: list[dict[str, float]] = []
    trainer = tiny_trainer("obb", epochs=2, imhi=0, val=False, save=True)
    trainer.add_callback(EVENT, lambda t: seen.append(dict(t.metrics)))
    trainer.train()
    with (Path(trainer.save_dir) / "results.csv").open() as f:
        header, *rows = csv.reader(f)
    assert len(set(header)) == len(header)
    assert len(rows) == 2
    terms = [name for name in header if name.split("/")[0] not in {"epoch", "time", "train", "val", "metrics", "lr"}]
    assert {"gain/exlo", "share/exlo", "ratio/exlo", "grad/task", "clip/steps", "left_out/images"} <= {*terms}
    for row, metrics in zip(rows, seen, strict=False):
        values = {k: v for k, v in zip(header, map(float, row), strict=True) if k in terms}
        assert {k: metrics[k] for k in loggable(values)} == pytest.approx(loggable(values), rel=1e-5)
    assert len(seen) == 3, "the best checkpoint is validated at the end"
    assert not {*terms} & seen[2].keys()
    checkpoint = torch.load(trainer.last, weights_only=False)
    assert not {*terms} & checkpoint["train_metrics"].keys()


def test_tensorboard_logs_the_columns(
    at_epoch_end: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = logger_module("tensorboard", monkeypatch)

    def log(trainer: Any) -> None:
        logger.on_pretrain_routine_start(trainer)
        logger.on_fit_epoch_end(trainer)
        logger.teardown(trainer)

    at_epoch_end(log)
    events = EventAccumulator(str(tmp_path)).Reload()
    logged = {tag: [(s.step, s.value) for s in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert {k: v for k, v in logged.items() if "mAP50" not in k} == {k: [(1, v)] for k, v in LOGGED.items()}


def test_mlflow_logs_the_columns(
    at_epoch_end: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # MLflow 3 prefers a data base
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    try:
        with mlflow.start_run() as run:
            trainer = at_epoch_end(logger_module("mlflow", monkeypatch).on_fit_epoch_end)
        logged = mlflow.MlflowClient().get_run(run.info.run_id).data.metrics
    finally:
        mlflow.set_tracking_uri(before)
    assert trainer._mlflow_active, "Ultralytics ends its logging after an error"
    assert logged == {"metrics/mAP50B": 0.5, **LOGGED}
